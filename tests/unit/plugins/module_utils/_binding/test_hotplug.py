# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that go and come back while the host runs, and those that a boot does not wait for."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.lock import exclusive
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    ANNOUNCED,
    BINDINGS,
    HOTPLUG_PATH,
    HOTPLUG_RULES,
    HOTPLUG_SERVICE,
    UNIT,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import hotplug
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.boot import Boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import NOTHING, binding, boot, converge
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC, OTHER, FREE, PF = "0000:00:04.0", "0000:00:05.0", "0000:00:09.0", "0000:01:00.0"
MAC = "52:54:00:00:00:11"
REQUEST = Request([{"mac": MAC}], accept_unsafe=True)
_RULE = re.compile(r'ACTION=="(.*)", ATTR\{vendor\}=="(.*)", ATTR\{device\}=="(.*)", RUN\+="/bin/mkdir -p (.*)"')


@pytest.fixture
def host(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host that was deployed with one of its two NICs."""
    for module, name in ((hotplug, "_QUIET"), (hotplug, "_INTERVAL"), (_boot, "PLUG_WAIT"), (_boot, "BOOT_WAIT")):
        monkeypatch.setattr(module, name, 0.0)
    for number, address in enumerate((NIC, OTHER)):
        machine.tree.pci(address, driver="e1000e")
        machine.tree.net("eth%d" % (number + 1), address, "52:54:00:00:00:1%d" % (number + 1))
    machine.tree.dir("/run/systemd/system")
    converge(machine, REQUEST)
    return machine


def forget_interfaces(host: Machine, address: str) -> None:
    for _name, _path, parked in host._parked.pop(address, []):
        shutil.rmtree(parked)


def unplug(host: Machine, address: str) -> None:
    """Write to the device's remove: everything of it is gone, the group of ours too."""
    if host.driver_of(address) is not None:
        host.unbind(address)
    if host.root.exists("/sys/class/iommu/noiommu-" + address):
        host.drop(address)
    forget_interfaces(host, address)
    for path in ("/sys/bus/pci/devices/" + address, "/sys/devices/pci0000:00/" + address):
        host.tree.remove(path)


def announce(host: Machine, address: str, action: str = "add") -> None:
    """Do what udev does by the rules that are there."""
    device = "/sys/bus/pci/devices/" + address
    for line in (host.root.read_text(HOTPLUG_RULES) or "").splitlines():
        rule = _RULE.match(line)
        kind = [host.root.read_text(device, name) for name in ("vendor", "device")]
        if rule and action in rule.group(1).split("|") and kind == [rule.group(2), rule.group(3)]:
            host.tree.dir(rule.group(4).replace("%k", address))


def plug_in(host: Machine, address: str = NIC, mac: str = MAC, name: str = "eth1") -> None:
    """Have a NIC come: udev announces it, and its driver is there by the time anybody looks."""
    host.tree.pci(address, driver="e1000e")
    host.tree.remove("/sys/class/net/" + name)
    host.tree.net(name, address, mac)
    announce(host, address)


def plug(host: Machine, net: NetState | None = None) -> tuple[int, list[str]]:
    lines: list[str] = []
    return Boot(host.kernel, GuardContext(host.root, net), lines.append).plug(), lines


def test_a_device_that_is_back_is_bound_again(host: Machine) -> None:
    unplug(host, NIC)
    plug_in(host)
    failed, lines = plug(host)
    assert failed == 0 and host.driver_of(NIC) == "vfio-pci" and len(lines) == 1, lines
    assert not binding(host, REQUEST).changed
    assert host.root.listdir(ANNOUNCED) == []
    converge(host, NOTHING)
    assert host.driver_of(NIC) == "e1000e"


def test_what_another_run_kept_from_being_bound_is_bound_by_the_next_start(
    host: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    unplug(host, NIC)
    plug_in(host)
    with monkeypatch.context() as patch, exclusive(host.root):
        patch.setattr(_boot, "BUILD_WAIT", 0.0)
        with pytest.raises(HostError, match="Another run is working on this host"):
            plug(host)
    assert host.root.listdir(ANNOUNCED) == [NIC]
    assert plug(host)[0] == 0 and host.driver_of(NIC) == "vfio-pci" and host.root.listdir(ANNOUNCED) == []


def test_elsewhere_too(host: Machine) -> None:
    unplug(host, NIC)
    plug_in(host, FREE)
    failed, lines = plug(host)
    assert failed == 0 and host.driver_of(FREE) == "vfio-pci" and "found by its MAC" in lines[0]
    assert not binding(host, REQUEST).changed


def test_another_one_of_its_kind_is_left_alone(host: Machine) -> None:
    unplug(host, NIC)
    plug_in(host, mac="52:54:00:00:00:99")
    failed, lines = plug(host)
    assert failed == 1 and host.driver_of(NIC) == "e1000e" and "another MAC is there" in lines[0]


def test_guards_speak_as_at_any_other_time(host: Machine) -> None:
    unplug(host, NIC)
    plug_in(host)
    index = host.root.read_int("/sys/class/net/eth1/ifindex")
    failed, lines = plug(host, NetState([], [Route("inet", "main", "default", "192.0.2.1", (index,), False)]))
    assert failed == 1 and host.driver_of(NIC) == "e1000e" and "default" in lines[0]


def test_one_that_is_not_declared_costs_nothing(host: Machine) -> None:
    host.tree.pci(FREE, "1af4:1041", driver="virtio-pci")
    announce(host, FREE)
    assert not host.root.exists(ANNOUNCED), "not even of the kind"
    plug_in(host, FREE, "52:54:00:00:00:77", "eth7")
    host.requests.clear()
    assert plug(host) == (0, []) and host.requests == [] and host.driver_of(FREE) == "e1000e"


def test_what_somebody_bound_by_hand_stays_when_another_one_comes(host: Machine) -> None:
    both = Request([{"mac": MAC}, {"address": OTHER}], accept_unsafe=True)
    converge(host, both)
    host.unbind(OTHER)
    host.drop(OTHER)
    host.tree.file(host.tree.real(OTHER) + "/driver_override", "(null)")
    host.bind(OTHER, "e1000e")
    announce(host, OTHER, "bind")
    assert not host.root.exists(ANNOUNCED)
    unplug(host, NIC)
    plug_in(host)
    assert plug(host)[0] == 0
    assert (host.driver_of(NIC), host.driver_of(OTHER)) == ("vfio-pci", "e1000e")


def test_a_storm_is_one_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["0000:%02x:00.0" % (number + 0x10) for number in range(64)]
    for number, address in enumerate(addresses):
        machine.tree.pci(address, driver="e1000e")
        machine.tree.net("eth%d" % number, address, "52:54:00:00:01:%02x" % number)
    request = Request([{"vendor_device": "8086:10d3"}], accept_unsafe=True)
    converge(machine, request)
    for address in addresses:
        unplug(machine, address)
    coming, binds = list(enumerate(addresses)), []

    def sleep(_seconds: float) -> None:
        for number, address in coming[:8]:
            plug_in(machine, address, "52:54:00:00:01:%02x" % number, "eth%d" % number)
        del coming[:8]

    real = Boot._bind

    def counted(self: Boot, only: set[str] | None, *rest: object) -> int:
        binds.append(only)
        return real(self, only, *rest)

    monkeypatch.setattr(hotplug.time, "sleep", sleep)
    monkeypatch.setattr(hotplug, "_GATHERING", 600.0)
    monkeypatch.setattr(Boot, "_bind", counted)
    sleep(0)
    failed, lines = plug(machine)
    assert failed == 0 and len(lines) == 64 and binds == [set(addresses)]
    assert {machine.driver_of(address) for address in addresses} == {"vfio-pci"}
    assert not binding(machine, request).changed


def test_one_that_is_ready_does_not_wait_for_one_that_is_not(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Request([{"mac": MAC}, {"address": OTHER}], accept_unsafe=True)
    converge(host, both)
    monkeypatch.setattr(_boot, "PLUG_WAIT", 60.0)
    for address in (NIC, OTHER):
        unplug(host, address)
    host.tree.pci(OTHER, driver="e1000e")  # waits for its firmware, and shows no interface yet
    announce(host, OTHER)
    plug_in(host)
    slept: list[str | None] = []

    def sleep(_seconds: float) -> None:
        slept.append(host.driver_of(NIC))
        if slept[-1] == "vfio-pci":
            host.tree.remove("/sys/class/net/eth2")
            host.tree.net("eth2", OTHER, "52:54:00:00:00:12")

    monkeypatch.setattr(hotplug.time, "sleep", sleep)
    failed, lines = plug(host)
    assert failed == 0 and "vfio-pci" in slept, lines
    assert (host.driver_of(NIC), host.driver_of(OTHER)) == ("vfio-pci", "vfio-pci")
    assert "could not be checked" not in "".join(lines)


# --- virtual functions ---


@pytest.fixture
def functions(host: Machine) -> Request:
    """Two virtual functions, made and bound."""
    host.tree.pci(PF, "8086:10c9", driver="igb")
    host.tree.net("pf0", PF, "52:54:00:00:00:20")
    host.tree.sriov(PF)
    request = Request([{"pf": PF, "vf": ["0-1"]}], accept_unsafe=True, sriov=[{"pf": PF, "vfs": 2}])
    converge(host, request)
    return request


def test_a_physical_functions_driver_that_is_reloaded(host: Machine, functions: Request) -> None:
    host.functions(PF, 0)
    announce(host, PF, "bind")
    failed, lines = plug(host)
    assert failed == 0, lines
    assert [host.driver_of(Tree.vf_address(PF, index)) for index in (0, 1)] == ["vfio-pci", "vfio-pci"]
    assert not binding(host, functions).changed


def test_virtual_functions_that_others_make_anew(host: Machine, functions: Request) -> None:
    converge(host, NOTHING)
    host.functions(PF, 2)
    converge(host, Request([{"pf": PF, "vf": ["1"]}], accept_unsafe=True))
    host.functions(PF, 0)
    host.functions(PF, 2)
    announce(host, Tree.vf_address(PF, 1))
    assert plug(host)[0] == 0
    assert [host.driver_of(Tree.vf_address(PF, index)) for index in (0, 1)] == ["igbvf", "vfio-pci"]


# --- what a boot does not wait for ---


def reboot(host: Machine) -> None:
    host.unbind(NIC)
    host.drop(NIC)
    host.tree.file(host.tree.real(NIC) + "/driver_override", "(null)")
    for module in ("noiommu", "vfio-pci", "vfio_iommu_type1"):
        host.unload(module)


@pytest.fixture
def rebooted(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 10.0)
    monkeypatch.setattr(_boot.time, "sleep", lambda _seconds: pytest.fail("the boot waits"))
    reboot(host)
    return host


def test_a_blacklisted_driver_is_not_waited_for(rebooted: Machine) -> None:
    failed, lines = boot(rebooted)
    assert failed == 0 and "its MAC could not be checked" in lines[0] and rebooted.driver_of(NIC) == "vfio-pci"


def test_nor_is_a_device_that_is_gone(rebooted: Machine) -> None:
    unplug(rebooted, NIC)
    assert boot(rebooted)[0] == 1
    assert not rebooted.root.exists(ANNOUNCED), "udev will announce it"


def test_a_card_that_is_late_is_left_to_the_service_for_hotplug(
    rebooted: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_interfaces(rebooted, NIC)
    rebooted.tree.bind(NIC, "e1000e")  # which waits for the card's firmware
    failed, lines = boot(rebooted)
    assert failed == 0 and "postponed until it shows its identity: %s (e1000e)" % NIC in lines[0]
    assert rebooted.driver_of(NIC) == "e1000e" and rebooted.root.listdir(ANNOUNCED) == [NIC]
    monkeypatch.setattr(_boot, "PLUG_WAIT", 60.0)

    def sleep(_seconds: float) -> None:
        if not rebooted.root.exists("/sys/class/net/eth1"):
            rebooted.tree.net("eth1", NIC, MAC)

    monkeypatch.setattr(hotplug.time, "sleep", sleep)
    failed, lines = plug(rebooted)
    assert failed == 0 and rebooted.driver_of(NIC) == "vfio-pci" and "could not be" not in lines[0]


def test_what_udev_announced_before_is_done_with_the_boot(rebooted: Machine) -> None:
    announce(rebooted, NIC)
    assert boot(rebooted)[0] == 0 and rebooted.root.listdir(ANNOUNCED) == []


# --- files ---


def test_files_are_there_as_long_as_anything_is_declared(host: Machine) -> None:
    assert "systemctl start noiommu-hotplug.path" in host.requests
    # Whoever masks or disables the boot unit has nothing bound: neither starts without the other.
    assert "Wants=network-pre.target noiommu-hotplug.path\n" in host.root.read_text(UNIT)
    assert "[Install]" not in host.root.read_text(HOTPLUG_PATH) + host.root.read_text(HOTPLUG_SERVICE)
    assert "plug\n" in host.root.read_text(HOTPLUG_SERVICE)
    text = host.root.read_text(HOTPLUG_RULES) or ""
    assert text.count("RUN") == 1 and 'ATTR{device}=="0x10d3"' in text
    host.tree.dir(ANNOUNCED + "/" + NIC)
    converge(host, NOTHING)
    assert "systemctl stop noiommu-hotplug.path" in host.requests
    paths = (HOTPLUG_RULES, HOTPLUG_PATH, HOTPLUG_SERVICE, ANNOUNCED)
    assert not [path for path in paths if host.root.exists(path)]


def test_without_bindings_that_outlast_a_boot_there_are_none(host: Machine) -> None:
    converge(host, REQUEST._replace(persistent=False))
    assert not host.root.exists(HOTPLUG_RULES) and not host.root.exists(HOTPLUG_PATH)
    assert not host.root.exists(BINDINGS)


def test_a_run_without_a_record_leaves_no_announcement(machine: Machine) -> None:
    machine.tree.dir(ANNOUNCED + "/" + NIC)
    assert plug(machine)[0] == 0 and machine.root.listdir(ANNOUNCED) == []


# --- damaged records ---


@pytest.mark.parametrize("entry", [None, [], {}, {"address": 7}, {"address": NIC, "macs": None}])
def test_one_damaged_entry_costs_one_device(host: Machine, entry: object) -> None:
    reboot(host)
    host.bind(NIC, "e1000e")
    bindings = json.loads(host.root.read_text(BINDINGS))
    bindings["devices"].insert(0, entry)
    host.tree.file(BINDINGS, json.dumps(bindings))
    failed, lines = boot(host)
    assert failed >= 1 and host.driver_of(NIC) == "vfio-pci", lines
    assert lines[0].startswith("%s: skipped, it is damaged: devices[0]" % BINDINGS)
    assert entry in json.loads(host.root.read_text(BINDINGS))["devices"], "nothing is lost"


@pytest.mark.parametrize("change", [{"devices": {}}, {"driver": 7}, {"backend": "none"}, {"sriov": 1}])
def test_a_damaged_record_is_an_error_and_no_traceback(host: Machine, change: dict) -> None:
    bindings = json.loads(host.root.read_text(BINDINGS))
    host.tree.file(BINDINGS, json.dumps({**bindings, **change}))
    with pytest.raises(_boot.HostError, match="unusable"):
        boot(host)
