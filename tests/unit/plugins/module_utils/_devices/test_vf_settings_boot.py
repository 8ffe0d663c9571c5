# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of virtual functions at boot."""

from __future__ import annotations

import errno
import time

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import vf_control
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.transaction import Transaction
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.vf_transaction import configure
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_rtnetlink import Driver
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    binding,
    boot,
    converge,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.vf_settings import (
    FIRST,
    SECOND,
    SET_UP,
    is_as_declared,
    order,
    raw,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import PF, VFS


@pytest.fixture
def booted(host: Machine, driver: Driver) -> Machine:
    converge(host, SET_UP)
    host.functions(PF, 0)
    host.requests.clear()
    return host


def test_each_boot_sets_them_again(booted: Machine, driver: Driver) -> None:
    failed, lines = boot(booted)
    assert failed == 0 and is_as_declared(driver), lines
    made, mac, probed, bound = order(
        booted,
        "sriov_numvfs <- 4",
        "virtual function 0: mac",
        "drivers_probe <- " + VFS[3],
        "vfio-pci/bind <- " + VFS[0],
    )
    assert made < mac < probed < bound
    assert any("virtual function 0: set mac %s, vlan 100" % FIRST in line for line in lines)
    assert not binding(booted, SET_UP).changed
    booted.requests.clear()
    assert boot(booted)[0] == 0 and booted.requests == []


def test_functions_that_others_made_are_set_up(booted: Machine, driver: Driver) -> None:
    booted.functions(PF, 4)
    failed, lines = boot(booted)
    assert failed == 0 and is_as_declared(driver), lines
    assert not binding(booted, SET_UP).changed


def test_one_that_cannot_be_set_up_is_not_bound(booted: Machine, driver: Driver) -> None:
    driver.refuses["trust"] = errno.EIO  # which only the first one needs
    failed, lines = boot(booted)
    assert failed == 2 and [booted.driver_of(address) for address in VFS[:3]] == [None, "vfio-pci", "vfio-pci"]
    assert any("virtual function 0 was not set up" in line and "EIO" in line for line in lines)
    assert any("%s: skipped, as it could not be set up as declared" % VFS[0] in line for line in lines)


def test_one_of_the_hosts_that_cannot_be_set_up_gets_no_driver(booted: Machine, driver: Driver) -> None:
    driver.refuses["spoof_check"] = errno.EIO  # which only the last one needs
    failed, _lines = boot(booted)
    assert failed == 1 and booted.driver_of(VFS[3]) is None and booted.driver_of(VFS[0]) == "vfio-pci"


def test_without_a_limit_it_works_as_well(booted: Machine, driver: Driver) -> None:
    driver.refuses["rate"] = errno.EINVAL
    failed, lines = boot(booted)
    assert failed == 1 and booted.driver_of(VFS[3]) == "igbvf", lines
    assert driver.of(PF, 3)["mac"] == raw(SECOND)


def test_a_boot_does_not_touch_one_that_the_host_needs(
    booted: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted.functions(PF, 4)
    net = NetState([], [Route("inet", "main", "default", "192.0.2.1", (1134,), False)])
    monkeypatch.setattr(GuardContext, "read_net", lambda self: net)
    monkeypatch.setattr(GuardContext, "net", net)
    boot(booted)
    assert driver.of(PF, 3)["mac"] == b"\0" * 6 and driver.of(PF, 0)["mac"] == raw(FIRST)


def test_a_link_is_waited_for_once(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vf_control, "_LINK_WAIT", 0.3)
    host.tree.file("/sys/class/net/pf0/carrier", "0")
    begin = time.monotonic()
    assert [vf_control._has_link(host.root, "pf0") for _function in range(20)] == [False] * 20
    assert 0.3 <= time.monotonic() - begin < 3


def test_a_refused_address_leaves_the_hosts_driver_its_function(host: Machine, driver: Driver) -> None:
    host.functions(PF, 4)
    before = host.driver_of(VFS[3])
    assert before is not None
    driver.refuses["mac"] = errno.EPERM
    transaction = Transaction(host.kernel)
    pf = PciBus(host.root).get(PF)
    assert pf is not None
    with pytest.raises(HostError):
        configure(transaction, pf, {3: {"mac": SECOND}})
    assert host.driver_of(VFS[3]) == before
