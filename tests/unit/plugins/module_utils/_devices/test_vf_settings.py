# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of virtual functions: set before any driver sees them, changed, and given back."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS, ORIGINALS
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import sriov
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import vf_netlink
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import devices
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.deployed import read_deployed
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_rtnetlink import Driver
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    boot,
    converge,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.vf_settings import (
    FIRST,
    PLAIN,
    SECOND,
    SET_UP,
    is_as_declared,
    order,
    raw,
    want,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import AUTOPROBE, PF, VFS


def test_they_are_set_before_any_driver_sees_them(host: Machine, driver: Driver) -> None:
    converge(host, SET_UP)
    assert is_as_declared(driver) and driver.of(PF, 1)["vlan"] == (0, 0, 0x8100)
    quiet, made, mac, trust, loud, probed, bound = order(
        host,
        AUTOPROBE + " <- 0",
        "sriov_numvfs <- 4",
        "virtual function 0: mac",
        "virtual function 0: trust",
        AUTOPROBE + " <- 1",
        "drivers_probe <- " + VFS[3],
        "vfio-pci/bind <- " + VFS[0],
    )
    assert quiet < made < mac < trust < loud < probed < bound
    # The one that the host keeps came up with its address.
    assert host.root.read_text("/sys/bus/pci/devices", VFS[3], "net", "vf134", "address") == SECOND
    assert not binding(host, SET_UP).changed


def test_check_mode_predicts_them(host: Machine, driver: Driver) -> None:
    predicted = binding(host, SET_UP, check_mode=True)
    steps, after, diff = predicted.steps, predicted.after(), predicted.diff()
    assert host.requests == []
    assert "%s: virtual function 0: set mac %s, vlan 100, qos 3, vlan_protocol 802.1Q, trust on" % (PF, FIRST) in steps
    real = binding(host, SET_UP)
    assert real.steps == steps
    real.apply()
    assert real.after()["sriov"] == after["sriov"]
    assert after["sriov"][0]["functions"][0] == {
        "vf": 0,
        "mac": FIRST,
        "vlan": 100,
        "qos": 3,
        "vlan_protocol": "802.1Q",
        "trust": True,
    }
    assert "  3: mac %s, vlan 100" % SECOND in diff[0]["after"]
    written = next(part for part in diff if part["after_header"].startswith(BINDINGS))
    assert written["after"] == host.tree.at(BINDINGS).read_text()


def test_without_settings_nothing_is_asked(host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vf_netlink, "_ask", None)
    converge(host, PLAIN)
    assert "functions" not in json.loads(host.root.read_text(BINDINGS))["sriov"][0]


def test_a_rollback_leaves_nothing(host: Machine, driver: Driver) -> None:
    content = host.tree.content()
    converge(host, SET_UP)
    predicted = binding(host, NOTHING, check_mode=True).after()
    one = converge(host, NOTHING)
    assert one.after() == predicted and host.tree.content() == content
    assert driver.functions == {} and not one.warnings


def test_settings_that_change_are_set_alone(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    host.requests.clear()
    one = converge(host, SET_UP)
    assert is_as_declared(driver) and not any("numvfs" in request for request in host.requests)
    assert one.before()["sriov"][0]["functions"][0]["trust"] is False
    # igbvf has the last one: it is bound anew, and so learns its address.
    unbound, mac, bound = order(host, "igbvf/unbind <- " + VFS[3], "virtual function 3: mac", "igbvf/bind <- " + VFS[3])
    assert unbound < mac < bound
    assert host.root.read_text("/sys/bus/pci/devices", VFS[3], "net", "vf134", "address") == SECOND
    assert not binding(host, SET_UP).changed


def test_those_declared_no_more_go_back(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    fresh = {key: dict(state) for key, state in driver.functions.items()}
    driver.of(PF, 1)["trust"] = 1  # somebody's
    fresh[PF, 1]["trust"] = 1
    converge(host, SET_UP)
    converge(host, PLAIN)
    assert driver.functions == fresh
    assert "functions" not in json.loads(host.root.read_text(ORIGINALS))["sriov"][PF]
    assert not binding(host, PLAIN).changed


def test_what_the_host_had_set_up_comes_back(host: Machine, driver: Driver) -> None:
    host.functions(PF, 4)
    driver.of(PF, 0).update(mac=raw("52:54:00:bb:00:00"), vlan=(7, 0, 0x88A8), trust=1)
    content, before = host.tree.content(), {key: dict(state) for key, state in driver.functions.items()}
    converge(host, SET_UP)
    assert is_as_declared(driver)
    one = converge(host, NOTHING)
    assert driver.functions == before and not one.warnings
    assert host.root.read_text("/sys/bus/pci/devices", VFS[0], "net", "vf128", "address") == "52:54:00:bb:00:00"
    assert not [path for path in set(content) ^ set(host.tree.content()) if not path.startswith("/sys/class/net/")]


def test_what_the_host_had_set_up_comes_back_with_its_number(host: Machine, driver: Driver) -> None:
    host.functions(PF, 2)
    driver.of(PF, 1).update(mac=raw("52:54:00:bb:00:01"), vlan=(7, 0, 0x8100), spoof_check=0)
    before = {key: dict(state) for key, state in driver.functions.items()}
    converge(host, want([{"vf": ["0"], "mac": FIRST}]))
    assert driver.of(PF, 1) == before[PF, 1], "it was made anew, and nothing else is declared"
    assert not binding(host, want([{"vf": ["0"], "mac": FIRST}])).changed
    host.functions(PF, 0)
    assert boot(host)[0] == 0 and driver.of(PF, 1) == before[PF, 1]
    converge(host, NOTHING)
    assert driver.functions == before and host.driver_of(VFS[1]) == "igbvf"
    assert not host.root.exists(ORIGINALS)


def drift(host: Machine, unknown: list[str] | None = None) -> list[str]:
    """What noiommu-verify says of the devices."""
    found = devices.drift(host.root, PciBus(host.root), read_deployed(host.root), [] if unknown is None else unknown)
    return list(found)


def test_drift_is_named_and_set_right(host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    converge(host, SET_UP)
    assert not drift(host)
    driver.of(PF, 2)["vlan"] = (101, 3, 0x8100)
    driver.of(PF, 0)["trust"] = 0
    assert drift(host) == [
        "%s: virtual function 0 has trust off instead of trust on" % PF,
        "%s: virtual function 2 has vlan 101 instead of vlan 100" % PF,
    ]
    converge(host, SET_UP)
    assert is_as_declared(driver) and not drift(host)


def test_settings_that_cannot_be_read_keep_nothing_else_from_being_compared(
    host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    converge(host, SET_UP)
    host.unbind(VFS[0])

    def fails(*_args: Any) -> None:
        raise HostError("netlink", "The kernel did not answer.")

    monkeypatch.setattr("%s.read_settings" % sriov.__name__, fails)
    unknown: list[str] = []
    assert any(VFS[0] in line for line in drift(host, unknown))
    assert any("virtual functions of %s: The kernel did not answer" % PF in text for text in unknown)


def test_what_could_not_go_back_keeps_nothing_else(host: Machine, driver: Driver) -> None:
    host.functions(PF, 4)
    converge(host, SET_UP)
    driver.refuses["rate"] = errno.EINVAL
    one = converge(host, NOTHING)
    assert driver.of(PF, 0)["mac"] == b"\0" * 6 and host.driver_of(VFS[0]) == "igbvf"
    (warning,) = one.warnings
    assert "virtual function 3 of %s did not go back" % PF in warning and "max_tx_rate" in warning
