# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings that a driver refuses, cannot do or does not tell, and runs that fail or are killed anywhere."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import vf_control
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_rtnetlink import Driver
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    converge,
    fails_everywhere,
    killed_everywhere,
    transitions,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.vf_settings import (
    FIRST,
    PLAIN,
    SECOND,
    SET_UP,
    is_as_declared,
    want,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import AUTOPROBE, PF

SMALL = want([{"vf": ["0"], "mac": FIRST}, {"vf": ["1"], "mac": SECOND, "vlan": 100}], 2, "0")
SMALL_PLAIN = want([], 2, "0")
CASES = {
    "make": ([], SMALL),
    "set up": ([SMALL_PLAIN], SMALL),
    "set up no more": ([SMALL], SMALL_PLAIN),
    "make more": ([SMALL], want([{"vf": ["0"], "mac": SECOND}, {"vf": ["2"], "trust": True}], 3, "0")),
}


def state(driver: Driver) -> Any:
    """Everything but for what virtual functions get anew when they are made anew: their groups and interfaces."""

    def look(host: Machine) -> tuple[Any, ...]:
        drivers = {one: host.driver_of(one) for one in host.root.listdir("/sys/bus/pci/devices")}
        settings = {key: tuple(found.items()) for key, found in driver.functions.items()}
        return drivers, settings, host.root.read_text(AUTOPROBE), host.tree.content("/etc"), host.tree.content("/var")

    return look


@transitions(CASES)
def test_a_failure_anywhere_puts_everything_back(
    host: Machine, driver: Driver, before: list[Request], wanted: Request
) -> None:
    fails_everywhere(host, before, wanted, state(driver))


@transitions({name: CASES[name] for name in ("make", "set up no more")})  # they take their time
def test_a_run_killed_anywhere_is_finished_or_taken_back(
    host: Machine, driver: Driver, before: list[Request], wanted: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_everywhere(host, before, wanted, monkeypatch)


@pytest.mark.parametrize(
    "setting,code,words",
    [
        ("link_state", errno.EOPNOTSUPP, "did not set link_state of virtual function 3"),
        ("vlan", errno.EPROTONOSUPPORT, "did not set vlan, qos, vlan_protocol of virtual function 0"),
        ("rate", errno.EINVAL, "did not set min_tx_rate, max_tx_rate of virtual function 3"),
        ("mac", errno.EPERM, "did not set mac of virtual function 0"),
    ],
)
def test_what_a_driver_cannot_do(host: Machine, driver: Driver, setting: str, code: int, words: str) -> None:
    content = host.tree.content()
    driver.refuses[setting] = code
    with pytest.raises(HostError) as caught:
        binding(host, SET_UP).apply()
    assert caught.value.code == "sriov" and words in caught.value.message
    assert "The driver igb" in caught.value.message and PF in caught.value.message
    assert errno.errorcode[code] in caught.value.message and caught.value.remedy
    assert not any("NOT put back" in line for line in caught.value.evidence)
    assert host.tree.content() == content


def test_what_a_driver_takes_and_does_not_do(host: Machine, driver: Driver) -> None:
    driver.deaf.add("spoof_check")
    with pytest.raises(HostError, match="says that it set spoof_check of virtual function 3") as caught:
        binding(host, SET_UP).apply()
    assert caught.value.evidence[:2] == ["set: spoof_check off", "read: spoof_check on"]
    assert host.root.read_int("/sys/bus/pci/devices", PF, "sriov_numvfs") == 0


def test_what_a_driver_does_not_tell_is_refused_before_anything_changes(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    host.requests.clear()
    driver.silent.add("trust")
    with pytest.raises(Refused, match="The driver igb does not know trust of virtual function 0 of %s" % PF):
        binding(host, SET_UP)
    assert host.requests == []
    converge(host, NOTHING)
    with pytest.raises(HostError, match="does not know trust"):  # there it can be found out only then
        binding(host, SET_UP).apply()
    assert host.root.read_int("/sys/bus/pci/devices", PF, "sriov_numvfs") == 0


def test_a_rate_waits_for_the_link(host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """igb compares it with the speed, which is none yet right after the interface was set up."""
    driver.refuses["rate"] = errno.EINVAL
    host.tree.file("/sys/class/net/pf0/carrier", "0")
    monkeypatch.setattr(vf_control, "_LINK_WAIT", 60.0)

    def comes_up(_seconds: float) -> None:
        host.tree.file("/sys/class/net/pf0/carrier", "1")
        driver.refuses.clear()

    monkeypatch.setattr(vf_control.time, "sleep", comes_up)
    converge(host, SET_UP)
    assert is_as_declared(driver)
