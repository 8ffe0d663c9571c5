# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual functions as part of the transaction: predicted, made, bound, remembered, and taken back."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.sriov import predict
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import Address, NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus, PciDevice
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy import guards
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    boot,
    converge,
    fails_everywhere,
    killed_everywhere,
    transitions,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PF, MAC = "0000:01:00.0", "52:54:00:00:00:20"
VFS = [Tree.vf_address(PF, index) for index in range(8)]
NUMBER, AUTOPROBE = ("/sys/bus/pci/devices/%s/sriov_%s" % (PF, name) for name in ("numvfs", "drivers_autoprobe"))


def want(vfs: int, *taken: str, **more) -> Request:
    devices = [{"pf": MAC, "vf": list(taken)}] if taken else []
    return Request(devices, accept_unsafe=True, sriov=[{"pf": "pf0", "vfs": vfs}], **more)


THREE_OF_FOUR = want(4, "0-2")


@pytest.fixture
def host(machine: Machine) -> Machine:
    machine.tree.pci(PF, "8086:10c9", driver="igb")
    machine.tree.net("pf0", PF, MAC, up=True)
    machine.tree.sriov(PF)
    machine.tree.driver("igbvf")
    return machine


@pytest.fixture
def down(host: Machine) -> Machine:
    """The same, and the interface is down, as it is when the boot unit runs."""
    host.tree.file("/sys/class/net/pf0/flags", "0x1002")
    host.needs_link.add(PF)
    return host


def number(host: Machine) -> int:
    return host.root.read_int(NUMBER)


def test_they_are_made_quietly_and_bound(host: Machine) -> None:
    one = converge(host, THREE_OF_FOUR)
    assert number(host) == 4 and host.root.read_text(AUTOPROBE) == "1"
    assert [host.driver_of(address) for address in VFS[:4]] == ["vfio-pci"] * 3 + ["igbvf"]
    found = one.resolved(one.after())
    assert [device["address"] for device in found] == VFS[:3]
    assert "/dev/vfio/by-mac/%s-vf2" % MAC in found[2]["names"]
    assert host.root.realpath("/dev/vfio/by-mac/%s-vf2" % MAC) == found[2]["chardev"]
    # None of the taken ones ever had an interface.
    assert not any("link up" in request or "igbvf/unbind" in request for request in host.requests)


def test_check_mode_predicts_what_does_not_exist_yet(host: Machine) -> None:
    content = host.tree.content()
    predicted = binding(host, THREE_OF_FOUR, check_mode=True)
    steps, after, diff = predicted.steps, predicted.after(), predicted.diff()
    assert host.requests == [] and host.tree.content() == content
    assert any("3 virtual functions do not exist yet" in message for message in predicted.messages)
    real = binding(host, THREE_OF_FOUR)
    assert real.steps == steps and real.changed
    real.apply()
    fact = real.after()
    assert [dict(one, iommu_group=None) for one in after["devices"]] == [
        dict(one, iommu_group=None) for one in fact["devices"]
    ]
    assert after["sriov"] == fact["sriov"] == [{"pf": PF, "vfs": 4}]
    bindings = [part for part in diff if part["after_header"].startswith("/etc/noiommu/bindings.json")]
    assert bindings[0]["after"] == host.tree.at("/etc/noiommu/bindings.json").read_text()


def test_where_the_addresses_cannot_be_known_the_real_run_finds_them(host: Machine) -> None:
    host.tree.file("/sys/bus/pci/devices/%s/sriov_offset" % PF, "0")
    predicted = binding(host, THREE_OF_FOUR, check_mode=True)
    assert [device.address for device in predicted.devices] == ["%s-vf%d" % (PF, index) for index in range(3)]
    one = binding(host, THREE_OF_FOUR)
    one.apply()
    assert [device.address for device in one.devices] == VFS[:3]
    assert set(json.loads(host.root.read_text("/var/lib/noiommu/originals.json"))["devices"]) == set(VFS[:3])
    assert not binding(host, THREE_OF_FOUR).changed


def test_predicted_addresses_carry_over_to_the_next_bus(host: Machine) -> None:
    pf = PciBus(host.root).get(PF)
    host.tree.file("/sys/bus/pci/devices/%s/sriov_offset" % PF, "384")
    assert [one.address for one in predict(host.root, pf, 2).values()] == ["0000:02:10.0", "0000:02:10.2"]


def test_absent_leaves_none(host: Machine) -> None:
    content = host.tree.content()
    converge(host, THREE_OF_FOUR)
    predicted = binding(host, NOTHING, check_mode=True).after()
    one = converge(host, NOTHING)
    assert one.after() == predicted
    assert host.tree.content() == content


def test_absent_gives_back_the_number_there_was(host: Machine) -> None:
    host.tree.file(NUMBER, "0")
    host.functions(PF, 2)
    content = host.tree.content()
    converge(host, want(5, "0-4"))
    assert number(host) == 5 and host.driver_of(VFS[4]) == "vfio-pci"
    converge(host, NOTHING)
    assert host.tree.content() == content and host.driver_of(VFS[0]) == "igbvf"


def test_for_the_host_itself_drivers_may_have_them(host: Machine) -> None:
    one = converge(host, want(2))
    assert one.backend is None and [host.driver_of(address) for address in VFS[:2]] == ["igbvf"] * 2
    assert "%s <- 0" % AUTOPROBE not in host.requests
    assert host.root.exists("/etc/noiommu/bindings.json")


def test_delisting_the_devices_keeps_the_number(host: Machine) -> None:
    converge(host, THREE_OF_FOUR)
    converge(host, want(4))
    assert number(host) == 4 and host.driver_of(VFS[0]) is None


def is_up(host: Machine) -> bool:
    return host.root.read_text("/sys/class/net/pf0/flags") == "0x1003"


def test_the_physical_functions_interface_is_set_up_first(down: Machine) -> None:
    content = down.tree.content()
    assert "%s: set pf0 up" % PF in binding(down, THREE_OF_FOUR).steps
    converge(down, THREE_OF_FOUR)
    assert number(down) == 4 and is_up(down)
    assert not binding(down, THREE_OF_FOUR).changed
    converge(down, NOTHING)
    assert down.tree.content() == content and not is_up(down)


def test_and_at_boot(down: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    converge(down, THREE_OF_FOUR)
    down.functions(PF, 0)
    down.tree.file("/sys/class/net/pf0/flags", "0x1002")
    failed, lines = boot(down)
    assert failed == 0 and number(down) == 4 and is_up(down), lines


def test_one_whose_interface_does_not_come_up_keeps_nothing_else_from_the_boot(
    down: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    nic = "0000:00:0a.0"
    down.tree.pci(nic, "1af4:1041", driver="virtio-pci")
    converge(down, THREE_OF_FOUR._replace(devices=[*THREE_OF_FOUR.devices, {"address": nic}]))
    down.functions(PF, 0)
    down.unbind(nic)
    down.tree.file("/sys/class/net/pf0/flags", "0x1002")

    def link_up(name: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(down.kernel, "link_up", link_up)
    failed, lines = boot(down)
    assert failed and down.driver_of(nic) == "vfio-pci" and number(down) == 0, lines
    assert any("%s: no virtual functions: " % PF in line and "Input/output error" in line for line in lines)


def test_a_signal_ends_a_boot_that_makes_virtual_functions(down: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    converge(down, THREE_OF_FOUR)
    down.functions(PF, 0)
    real = down.kernel.set_functions

    def interrupted(pf: PciDevice, count: int) -> None:
        real(pf, count)
        if count:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(down.kernel, "set_functions", interrupted)
    with pytest.raises(HostError, match="ended this run") as caught:
        boot(down)
    assert caught.value.code == "interrupted" and number(down) == 0


def test_what_the_host_began_to_use_stays_up(down: Machine) -> None:
    converge(down, THREE_OF_FOUR)
    index = down.root.read_int("/sys/class/net/pf0/ifindex")
    net = NetState([], [Route("inet", "main", "default", "192.0.2.1", (index,), False)])
    binding(down, NOTHING, net=net).apply()
    assert number(down) == 0 and is_up(down)


def test_one_that_was_up_stays_up(host: Machine) -> None:
    converge(host, THREE_OF_FOUR)
    converge(host, NOTHING)
    assert is_up(host) and "link down pf0" not in host.requests


def test_a_run_that_fails_sets_it_down_again(down: Machine) -> None:
    down.broken.add("sriov")
    with pytest.raises(HostError):
        binding(down, THREE_OF_FOUR).apply()
    assert not is_up(down)


TRANSITIONS = transitions(
    {
        "make": ([], THREE_OF_FOUR),
        "make more": ([THREE_OF_FOUR], want(6, "0-5")),
        "make fewer": ([THREE_OF_FOUR], want(2, "0-1")),
        "absent": ([THREE_OF_FOUR], NOTHING),
    }
)


def state(host: Machine) -> tuple:
    """Everything but for what virtual functions get anew when they are made anew: their groups and interfaces."""
    drivers = {one: host.driver_of(one) for one in host.root.listdir("/sys/bus/pci/devices")}
    return (
        drivers,
        host.root.read_text(AUTOPROBE),
        host.tree.content("/etc"),
        host.tree.content("/var"),
        len(host.tree.content("/dev/vfio")),
    )


@TRANSITIONS
def test_a_failure_anywhere_puts_everything_back(host: Machine, before: list[Request], wanted: Request) -> None:
    fails_everywhere(host, before, wanted, state)


@TRANSITIONS
def test_a_run_killed_anywhere_is_finished_or_taken_back(
    host: Machine, before: list[Request], wanted: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_everywhere(host, before, wanted, monkeypatch)


def test_a_number_that_the_driver_does_not_make_is_an_error(host: Machine) -> None:
    host.broken.add("sriov")
    with pytest.raises(HostError, match="did not set the number of virtual functions to 4") as caught:
        binding(host, THREE_OF_FOUR).apply()
    assert any("ENOMEM" in line or "Cannot allocate" in line for line in caught.value.evidence)
    assert number(host) == 0


# --- refusals ---


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


# --- at boot ---


@pytest.fixture
def booted(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    converge(host, THREE_OF_FOUR)
    host.functions(PF, 0)
    host.requests.clear()
    return host


def test_they_are_made_again_at_boot(booted: Machine) -> None:
    failed, lines = boot(booted)
    assert failed == 0 and "from 0 to 4" in lines[0], lines
    assert [booted.driver_of(address) for address in VFS[:4]] == ["vfio-pci"] * 3 + ["igbvf"]
    assert booted.root.exists("/dev/vfio/by-mac/%s-vf0" % MAC)
    assert not binding(booted, THREE_OF_FOUR).changed
    booted.requests.clear()
    assert boot(booted)[0] == 0 and booted.requests == []


def move(host: Machine, old: str, new: str) -> None:
    """Have a physical function come up under another address."""
    tree = host.tree
    name = tree.root.listdir("/sys/bus/pci/devices", old, "net")[0]
    tree.at(tree.real(old)).rename(tree.at("/sys/devices/pci0000:00/" + new))
    tree.remove("/sys/bus/pci/devices/" + old)
    tree.link("/sys/bus/pci/devices/" + new, "/sys/devices/pci0000:00/" + new)
    tree.link("/sys/class/net/" + name, "%s/net/%s" % (tree.real(new), name))


def test_a_physical_function_that_moved_is_followed(booted: Machine) -> None:
    new = "0000:05:00.0"
    move(booted, PF, new)
    failed, lines = boot(booted)
    assert failed == 0, lines
    assert booted.driver_of(Tree.vf_address(new, 0)) == "vfio-pci"
    assert not binding(booted, THREE_OF_FOUR).changed
    converge(booted, NOTHING)
    assert not booted.root.exists("/var/lib/noiommu")


OTHER, LAST, OTHER_MAC = "0000:02:00.0", "0000:03:00.0", "52:54:00:00:00:21"
TWO = Request(
    [{"pf": MAC, "vf": ["1"]}, {"pf": OTHER_MAC, "vf": ["0"]}],
    accept_unsafe=True,
    sriov=[{"pf": MAC, "vfs": 2}, {"pf": OTHER_MAC, "vfs": 3}],
)


@pytest.fixture
def two(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host with virtual functions of two cards of one kind, which had one before, and booted."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    host.tree.pci(OTHER, "8086:10c9", driver="igb")
    host.tree.net("pf1", OTHER, OTHER_MAC)
    host.tree.sriov(OTHER)
    host.functions(OTHER, 1)
    converge(host, TWO)
    for pf in (PF, OTHER):
        host.functions(pf, 0)
    return host


def test_physical_functions_that_all_moved_on_by_one_are_followed(two: Machine) -> None:
    move(two, OTHER, LAST)
    move(two, PF, OTHER)
    failed, lines = boot(two)
    assert failed == 0, lines
    taken = [one for one in two.root.listdir("/sys/bus/pci/devices") if two.driver_of(one) == "vfio-pci"]
    assert taken == [Tree.vf_address(OTHER, 1), Tree.vf_address(LAST, 0)]
    assert not binding(two, TWO).changed
    converge(two, NOTHING)
    numbers = [two.root.read_int("/sys/bus/pci/devices", pf, "sriov_numvfs") for pf in (OTHER, LAST)]
    assert numbers == [0, 1] and not two.root.exists("/var/lib/noiommu")


def test_a_physical_function_that_is_gone_keeps_its_number(two: Machine) -> None:
    move(two, OTHER, LAST)
    two.tree.remove("/sys/bus/pci/devices/" + LAST)
    two.tree.remove("/sys/class/net/pf1")
    move(two, PF, OTHER)
    assert boot(two)[0] == 2
    two.functions(OTHER, 0)
    two.tree.link("/sys/bus/pci/devices/" + LAST, "/sys/devices/pci0000:00/" + LAST)
    two.tree.link("/sys/class/net/pf1", two.tree.real(LAST) + "/net/pf1")
    failed, lines = boot(two)
    assert failed == 0, lines
    converge(two, NOTHING)
    numbers = [two.root.read_int("/sys/bus/pci/devices", pf, "sriov_numvfs") for pf in (OTHER, LAST)]
    assert numbers == [0, 1]


@pytest.fixture
def made_by_udev(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host with virtual functions that are not declared but made at every boot, before this tool or after."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    host.functions(PF, 2)
    converge(host, Request([{"pf": MAC, "vf": ["1"]}], accept_unsafe=True))
    host.functions(PF, 0)
    return host


def test_functions_that_others_make_late_are_waited_for(made_by_udev: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 60.0)
    made_by_udev.tree.file("/run/udev/queue")
    monkeypatch.setattr(_boot.time, "sleep", lambda _seconds: made_by_udev.functions(PF, 2))
    failed, lines = boot(made_by_udev)
    assert failed == 0 and made_by_udev.driver_of(VFS[1]) == "vfio-pci", lines


def test_functions_that_others_make_are_found_by_their_physical_ones_mac(made_by_udev: Machine) -> None:
    move(made_by_udev, PF, OTHER)
    made_by_udev.tree.pci(PF, "8086:10c9", driver="igb")
    made_by_udev.tree.net("pf1", PF, OTHER_MAC)
    made_by_udev.tree.sriov(PF)
    for pf in (PF, OTHER):
        made_by_udev.functions(pf, 2)
    failed, lines = boot(made_by_udev)
    assert failed == 0 and made_by_udev.driver_of(VFS[1]) == "igbvf", lines
    assert made_by_udev.driver_of(Tree.vf_address(OTHER, 1)) == "vfio-pci"
    record = json.loads(made_by_udev.root.read_text("/var/lib/noiommu/originals.json"))["devices"]
    assert {address: one["vf"]["pf"] for address, one in record.items()} == {Tree.vf_address(OTHER, 1): OTHER}


def test_functions_of_another_card_are_left_alone(made_by_udev: Machine) -> None:
    made_by_udev.tree.file("/sys/class/net/pf0/address", OTHER_MAC)
    made_by_udev.functions(PF, 2)
    failed, lines = boot(made_by_udev)
    assert failed == 1 and made_by_udev.driver_of(VFS[1]) == "igbvf"
    assert "another physical function is at %s: its MAC is %s" % (PF, OTHER_MAC) in lines[0]


def test_functions_of_another_kind_are_left_alone(made_by_udev: Machine) -> None:
    made_by_udev.functions(PF, 2)
    made_by_udev.tree.file(made_by_udev.tree.real(VFS[1]) + "/device", "0x1520")
    failed, lines = boot(made_by_udev)
    assert failed == 1 and "another device is there: 8086:1520 instead of 8086:10ca" in lines[0]


def test_a_physical_functions_driver_is_waited_for(booted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 60.0)
    booted.tree.file("/run/udev/queue")
    bindings = json.loads(booted.root.read_text(BINDINGS))
    bindings["sriov"][0]["macs"] = []  # a device that is none of the network's
    booted.tree.file(BINDINGS, json.dumps(bindings))
    booted.tree.remove(booted.tree.real(PF) + "/driver")
    monkeypatch.setattr(_boot.time, "sleep", lambda _seconds: booted.tree.bind(PF, "igb"))
    failed, lines = boot(booted)
    assert failed == 0 and booted.root.link_name(booted.tree.real(PF), "driver") == "igb", lines


def test_without_its_physical_function_the_rest_comes_up(booted: Machine) -> None:
    booted.broken.add("sriov")
    failed, lines = boot(booted)
    assert failed == 4 and "no virtual functions" in lines[0] and "has no virtual function 0" in lines[1]
