# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual functions that cannot be made, or not be destroyed, and what is said of it."""

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import Address, NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy import guards
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    converge,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import (
    MAC,
    NUMBER,
    PF,
    THREE_OF_FOUR,
    VFS,
    number,
    want,
)


@pytest.mark.parametrize(
    "sriov,message",
    [
        ([{"pf": PF, "vfs": 9}], "can have 0 to 8 virtual functions, and 9 are declared"),
        ([{"pf": PF, "vfs": -1}], "can have 0 to 8"),
        ([{"pf": PF, "vfs": 1}, {"pf": MAC, "vfs": 2}], "declared twice"),
        ([{"pf": "0000:00:04.0", "vfs": 1}], "cannot have virtual functions"),
        ([{"pf": "eth9", "vfs": 1}], "an interface named eth9"),
    ],
)
def test_declarations_that_cannot_be(host: Machine, sriov: list[dict], message: str) -> None:
    host.tree.pci("0000:00:04.0")
    with pytest.raises(Refused, match=message) as caught:
        binding(host, Request([], sriov=sriov))
    assert caught.value.refusals[0].remedy and host.requests == []


def test_a_physical_function_is_not_taken_with_its_virtual_ones(host: Machine) -> None:
    request = Request([{"address": PF}, {"pf": PF, "vf": ["0"]}], accept_unsafe=True, sriov=[{"pf": PF, "vfs": 2}])
    with pytest.raises(Refused, match="2 virtual functions, which would be destroyed"):
        binding(host, request)
    converge(host, Request([{"address": PF}], accept_unsafe=True))
    assert host.driver_of(PF) == "vfio-pci"


def test_virtual_functions_that_the_host_uses_are_not_destroyed(host: Machine) -> None:
    host.functions(PF, 2)
    index = host.root.read_int("/sys/class/net", host.root.listdir("/sys/class/net")[-1], "ifindex")
    net = NetState([], [Route("inet", "main", "default", "192.0.2.1", (index,), False)])
    with pytest.raises(Refused, match="would be destroyed, and is in use") as caught:
        binding(host, THREE_OF_FOUR, net=net)
    assert any("route default" in line for line in caught.value.evidence)
    converge(host, THREE_OF_FOUR)


def test_virtual_functions_of_somebody_else_are_not_destroyed(host: Machine) -> None:
    host.functions(PF, 2)
    host.unbind(VFS[1])
    host.tree.bind(VFS[1], "vfio-pci")
    with pytest.raises(Refused, match="would be destroyed") as caught:
        binding(host, THREE_OF_FOUR)
    assert "not by this collection" in str(caught.value)


def test_virtual_functions_in_use_are_not_destroyed(host: Machine) -> None:
    converge(host, THREE_OF_FOUR)
    group = host.root.link_name(host.tree.real(VFS[1]), "iommu_group")
    host.tree.file("/proc/4711/comm", "dpdk-testpmd")
    host.tree.dir("/proc/4711/fd")
    host.tree.at("/proc/4711/fd/17").symlink_to("/dev/vfio/" + group)
    for request in (want(6, "0-2"), NOTHING):
        with pytest.raises(Refused) as caught:
            binding(host, request)
        assert "in_use" in [one.code for one in caught.value.refusals]


def test_a_physical_function_that_carries_the_host_may_have_some(host: Machine) -> None:
    index = host.root.read_int("/sys/class/net/pf0/ifindex")
    net = NetState([Address(index, "192.0.2.5", 24)], [Route("inet", "main", "default", None, (index,), False)])
    one = binding(host, THREE_OF_FOUR, net=net)
    one.apply()
    assert number(host) == 4


def test_but_only_if_the_host_keeps_what_it_has(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "_DISTURBANCE_WAIT", 0.0)
    monkeypatch.setattr(GuardContext, "read_net", lambda self: NetState([], []))
    index = host.root.read_int("/sys/class/net/pf0/ifindex")
    with pytest.raises(HostError, match="lost what the host needs") as caught:
        binding(host, THREE_OF_FOUR, net=NetState([Address(index, "192.0.2.5", 24)], [])).apply()
    assert "gone: address 192.0.2.5/24" in caught.value.evidence and number(host) == 0


def test_guards_see_what_came_with_the_virtual_functions(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    make = host.functions

    def configured_at_once(pf: str, wanted: int) -> None:
        make(pf, wanted)
        if wanted:
            host.probe(VFS[0])

    monkeypatch.setattr(host, "functions", configured_at_once)
    net = NetState([], [Route("inet", "main", "default", "192.0.2.1", (1128,), False)])
    with pytest.raises(HostError, match="%s carries 1 of the host's routes" % VFS[0]):
        binding(host, THREE_OF_FOUR, net=net).apply()
    assert number(host) == 0


def test_a_physical_function_that_is_gone_is_forgotten(host: Machine) -> None:
    converge(host, want(2))
    for path in (NUMBER.rpartition("/")[0], "/sys/class/net/pf0", *("/sys/bus/pci/devices/" + one for one in VFS[:2])):
        host.tree.remove(path)
    one = binding(host, NOTHING)
    one.apply()
    assert any("record of its virtual functions is removed" in message for message in one.messages)


def test_preflight_judges_those_that_do_not_exist_yet(host: Machine) -> None:
    host.tree.file("/proc/sys/kernel/osrelease", os.uname().release)
    host.tree.file("/proc/sys/kernel/tainted", "0")
    devices, sriov = [{"pf": PF, "vf": ["0-2"], "count": 3}], [{"pf": PF, "vfs": 4}]
    report = Preflight(host.root, GuardContext(host.root), Declaration(devices, sriov, accept_unsafe=True)).report()
    assert [one["address"] for one in report["devices"]] == VFS[:3]
    assert not [one for one in report["verdict"]["refusals"] if one["code"] in ("selector", "sriov")]
    report = Preflight(host.root, GuardContext(host.root), Declaration(devices, [], accept_unsafe=True)).report()
    assert "selector" in [one["code"] for one in report["verdict"]["refusals"]]


def test_preflight_knows_that_functions_are_undone_which_are_declared_no_more(host: Machine) -> None:
    """The run would take the number back, and find no device then."""
    host.tree.file("/proc/sys/kernel/osrelease", os.uname().release)
    host.tree.file("/proc/sys/kernel/tainted", "0")
    converge(host, THREE_OF_FOUR)
    declared = Declaration([{"pf": PF, "vf": ["0"]}], [], accept_unsafe=True)
    refusals = Preflight(host.root, GuardContext(host.root), declared).report()["verdict"]["refusals"]
    assert "selector" in [one["code"] for one in refusals]


def test_one_that_cannot_be_unbound_keeps_its_own_physical_function_only(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.tree.pci("0000:00:04.0", driver="e1000e")
    request = want(4, "0-2")
    content = host.tree.content()
    converge(host, request._replace(devices=[*(request.devices or []), {"address": "0000:00:04.0"}]))
    real = host.root.write_sysfs

    def write(path: str, value: str) -> None:
        if path.endswith("/vfio-pci/unbind") and value == VFS[1]:
            raise HostError("kernel_write", "The kernel refused it: Input/output error (EIO).")
        real(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(host.root, "write_sysfs", write)
        change = converge(host, NOTHING)
        assert [device["address"] for device in change.unreleased] == VFS[:3]
        assert all("EIO" in device["reason"] for device in change.unreleased)
        with pytest.raises(HostError, match="EIO"):
            converge(host, want(2, "0"))  # what is declared is all or nothing
    assert number(host) == 4 and [host.driver_of(address) for address in VFS[:4]] == ["vfio-pci"] * 3 + ["igbvf"]
    assert host.driver_of("0000:00:04.0") == "e1000e"
    assert not converge(host, NOTHING).unreleased and number(host) == 0
    assert host.tree.content() == content
