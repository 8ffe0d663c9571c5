# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boot-time tool: finds devices by identity, never binds another one, and one failure stops no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS, PROGRAM, UNIT
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.boot import Boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.iommu import chardevs
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciDevice
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import NOTHING, binding, boot, converge

NIC, VIRTIO, FREE = "0000:00:04.0", "0000:00:05.0", "0000:00:09.0"
REQUEST = Request([{"address": NIC}, {"address": VIRTIO}], accept_unsafe=True)


@pytest.fixture
def host(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host that was deployed and then booted: files are there, devices are back on their drivers."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    tree = machine.tree
    tree.pci(NIC, driver="e1000e")
    tree.net("eth1", NIC, "52:54:00:00:00:11")
    tree.pci(VIRTIO, "1af4:1041", driver="virtio-pci")
    tree.net("eth2", VIRTIO, "52:54:00:00:00:12", child="virtio2")
    converge(machine, REQUEST)
    for address, driver in ((NIC, "e1000e"), (VIRTIO, "virtio-pci")):
        machine.unbind(address)
        machine.drop(address)
        tree.file(tree.real(address) + "/driver_override", "(null)")
        machine.bind(address, driver)
    for module in ("noiommu", "vfio-pci", "vfio_iommu_type1"):
        machine.unload(module)
    machine.requests.clear()
    return machine


def drivers_are_loading(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 60.0)
    host.tree.file("/run/udev/queue")


def move(host: Machine, old: str, new: str) -> None:
    """Have a device come up under another address."""
    tree = host.tree
    names = [name for name in tree.root.listdir("/sys/class/net") if old in tree.root.realpath("/sys/class/net", name)]
    tree.at(tree.real(old)).rename(tree.at("/sys/devices/pci0000:00/" + new))
    tree.remove("/sys/bus/pci/devices/" + old)
    tree.link("/sys/bus/pci/devices/" + new, "/sys/devices/pci0000:00/" + new)
    for name in names:
        tree.link("/sys/class/net/" + name, tree.real(new) + "/net/" + name)


def test_everything_comes_up_as_declared(host: Machine) -> None:
    failed, lines = boot(host)
    assert failed == 0 and len(lines) == 2
    assert lines[0].startswith("%s: on vfio-pci, /dev/vfio/" % NIC) and "unsafe" in lines[0]
    assert (host.driver_of(NIC), host.driver_of(VIRTIO)) == ("vfio-pci", "vfio-pci")
    assert not binding(host, REQUEST).changed


@pytest.mark.parametrize(
    "interfaces, jobs, asked, is_given_up",
    [
        ("pci %s uio_pci_generic" % NIC, ["17", "17", ""], 3, False),
        ("pci %s uio_pci_generic" % NIC, ["17"] * 999, 1, True),
        ("pci %s vfio-pci" % FREE, ["17"], 0, False),
        ("#pci %s vfio-pci" % NIC, ["17"], 0, False),
    ],
)
def test_dpdk_service_is_waited_for_where_it_binds_a_device_of_ours_but_not_for_ever(
    host: Machine, monkeypatch: pytest.MonkeyPatch, interfaces: str, jobs: list[str], asked: int, is_given_up: bool
) -> None:
    assert "dpdk" not in (host.root.read_text(UNIT) or ""), "it has no time limit, and the network waits for our unit"
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0 if is_given_up else 60.0)
    host.tree.file("/etc/dpdk/interfaces", interfaces)
    host.tree.file("/etc/systemd/system/multi-user.target.wants/dpdk.service")
    real, seen = host.runner.run, []

    def run(*argv: str) -> RunResult:
        if argv[-1] != "dpdk.service":
            return real(*argv)
        assert argv[:2] == ("systemctl", "show") and host.driver_of(NIC) == "e1000e"
        seen.append(argv)
        return RunResult(0, jobs[len(seen) - 1] + "\n", "")

    monkeypatch.setattr(host.runner, "run", run)
    failed, lines = boot(host)
    assert failed == 0 and host.driver_of(NIC) == "vfio-pci" and len(seen) == asked
    assert is_given_up == any("dpdk.service has not ended" in line and NIC in line for line in lines)


def test_a_device_that_is_pulled_out_meanwhile_keeps_no_other(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = host.kernel.wait_for_group

    def wait(device: PciDevice) -> str:
        if device.address == NIC:
            raise FileNotFoundError(2, "No such file or directory", device.path)
        return real(device)

    monkeypatch.setattr(host.kernel, "wait_for_group", wait)
    failed, lines = boot(host)
    assert failed == 1 and host.driver_of(VIRTIO) == "vfio-pci" and lines[0].startswith("%s: FAILED: " % NIC)


@pytest.mark.parametrize("part", ["links.update", "Boot._give_nodes"])
def test_names_that_cannot_be_made_keep_nothing_else(host: Machine, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    done = []

    def fail(*_args: object) -> None:
        raise HostError("file", "Could not write it: No space left on device.")

    monkeypatch.setattr("%s.%s" % (_boot.__name__, "links.update"), lambda *_args: done.append("links.update"))
    monkeypatch.setattr("%s.%s" % (_boot.__name__, "Boot._give_nodes"), lambda _self: done.append("Boot._give_nodes"))
    monkeypatch.setattr("%s.%s" % (_boot.__name__, part), fail)
    failed, lines = boot(host)
    assert failed == 1 and len(done) == 1 and any("No space left" in line for line in lines)
    assert (host.driver_of(NIC), host.driver_of(VIRTIO)) == ("vfio-pci", "vfio-pci")


def test_a_second_run_asks_nothing(host: Machine) -> None:
    boot(host)
    host.requests.clear()
    assert boot(host)[0] == 0 and host.requests == []


def test_a_device_whose_bus_number_moved_is_found_by_its_mac(host: Machine) -> None:
    move(host, NIC, FREE)
    failed, lines = boot(host)
    assert failed == 0 and host.driver_of(FREE) == "vfio-pci" and "found by its MAC" in lines[0]
    # The records follow, so that the way back stays known and the next Ansible run finds nothing to do.
    by_mac = Request([{"mac": "52:54:00:00:00:11"}, {"address": VIRTIO}], accept_unsafe=True)
    assert not binding(host, by_mac).changed
    converge(host, NOTHING)
    assert host.driver_of(FREE) == "e1000e"


# --- several that move ---

A, B, C = "0000:04:00.0", "0000:05:00.0", "0000:06:00.0"
ALIKE = Request([{"mac": "52:54:00:00:00:20"}, {"mac": "52:54:00:00:00:21"}], accept_unsafe=True)


def reboot(host: Machine, **drivers: str) -> None:
    """Have devices, given as ``a_04`` for 0000:04:00.0, back on the host's drivers, and nothing of ours loaded."""
    for address in host.root.listdir("/sys/bus/pci/devices"):
        if host.driver_of(address) == "vfio-pci":
            host.unbind(address)
            host.drop(address)
            host.tree.file(host.tree.real(address) + "/driver_override", "(null)")
    for number, driver in drivers.items():
        host.bind("0000:%s:00.0" % number[-2:], driver)
    for module in ("noiommu", "vfio-pci", "vfio_iommu_type1"):
        host.unload(module)
    host.requests.clear()


@pytest.fixture
def alike(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host that was deployed with two NICs of one kind, one of them up and with a driver of its own, and booted."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    for number, (address, driver) in enumerate(((A, "e1000e"), (B, "other"))):
        machine.tree.pci(address, driver=driver)
        machine.tree.net("eth%d" % number, address, "52:54:00:00:00:2%d" % number)
    converge(machine, ALIKE)
    reboot(machine, a_04="e1000e", b_05="other")
    return machine


def originals(host: Machine) -> dict[str, tuple[str, list[str]]]:
    """Return the recorded devices, each with its driver and its MAC addresses."""
    records = json.loads(host.root.read_text("/var/lib/noiommu/originals.json"))["devices"]
    return {key: (record["driver"], [link["mac"] for link in record["interfaces"]]) for key, record in records.items()}


def test_devices_that_all_moved_on_by_one_keep_their_records(alike: Machine) -> None:
    move(alike, B, C)
    move(alike, A, B)
    failed, lines = boot(alike)
    assert failed == 0 and [alike.driver_of(address) for address in (B, C)] == ["vfio-pci"] * 2, lines
    assert originals(alike) == {B: ("e1000e", ["52:54:00:00:00:20"]), C: ("other", ["52:54:00:00:00:21"])}
    assert not binding(alike, ALIKE).changed
    converge(alike, NOTHING)
    assert [alike.driver_of(address) for address in (B, C)] == ["e1000e", "other"]


def test_devices_that_changed_places_keep_their_records(alike: Machine) -> None:
    move(alike, A, C)
    move(alike, B, A)
    move(alike, C, B)
    assert boot(alike)[0] == 0
    assert originals(alike) == {B: ("e1000e", ["52:54:00:00:00:20"]), A: ("other", ["52:54:00:00:00:21"])}
    assert not binding(alike, ALIKE).changed


def test_a_device_that_is_gone_keeps_its_record_while_another_is_where_it_was(alike: Machine) -> None:
    move(alike, A, C)
    alike.tree.remove("/sys/bus/pci/devices/" + C)
    parked = alike.root.readlink("/sys/class/net/eth0")
    alike.tree.remove("/sys/class/net/eth0")
    move(alike, B, A)
    failed, lines = boot(alike)
    assert failed == 1 and any("skipped" in line for line in lines), lines
    assert originals(alike) == {A: ("other", ["52:54:00:00:00:21"])}
    reboot(alike, b_04="other")
    alike.tree.link("/sys/bus/pci/devices/" + C, "/sys/devices/pci0000:00/" + C)
    alike.tree.at("/sys/class/net/eth0").symlink_to(parked)
    assert boot(alike)[0] == 0
    assert originals(alike) == {C: ("e1000e", ["52:54:00:00:00:20"]), A: ("other", ["52:54:00:00:00:21"])}
    assert not binding(alike, ALIKE).changed


def test_where_another_one_is_now_a_device_is_not_looked_for_again(alike: Machine) -> None:
    alike.tree.remove("/sys/bus/pci/devices/" + A)
    alike.tree.remove("/sys/devices/pci0000:00/" + A)
    alike.tree.remove("/sys/class/net/eth0")
    move(alike, B, A)
    assert boot(alike)[0] == 1
    reboot(alike)
    failed, lines = boot(alike)  # nothing shows which of the two it is
    assert failed == 1 and alike.driver_of(A) == "vfio-pci"
    assert [line for line in lines if "another declared device is there" in line], lines
    assert originals(alike) == {A: ("other", ["52:54:00:00:00:21"])}


def test_a_run_killed_anywhere_keeps_the_records(alike: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    move(alike, B, C)
    move(alike, A, B)
    files = {path: alike.root.read_text(path) for path in ("/var/lib/noiommu/originals.json", BINDINGS)}

    def prepare() -> None:
        reboot(alike)
        for address, driver in ((B, "e1000e"), (C, "other")):
            if alike.driver_of(address) is None:
                alike.bind(address, driver)
        for path, text in files.items():
            alike.tree.file(path, text)

    killer = Killer(monkeypatch, (alike.root, "write_sysfs"), (alike.runner, "run"))
    for steps in killer.each(prepare, lambda: boot(alike)):
        assert boot(alike)[0] == 0, "killed after %d steps" % steps
        assert originals(alike) == {B: ("e1000e", ["52:54:00:00:00:20"]), C: ("other", ["52:54:00:00:00:21"])}
        assert not binding(alike, ALIKE).changed


# --- others, and those that are gone ---


def test_another_device_at_the_address_is_left_alone(host: Machine) -> None:
    move(host, NIC, FREE)
    host.tree.remove(host.tree.real(FREE))
    host.tree.remove("/sys/bus/pci/devices/" + FREE)
    host.tree.remove("/sys/class/net/eth1")
    host.tree.pci(NIC, driver="e1000e")
    host.tree.net("eth1", NIC, "52:54:00:99:99:99")
    failed, lines = boot(host)
    assert failed == 1 and host.driver_of(NIC) == "e1000e"
    assert "skipped, another MAC is there: 52:54:00:99:99:99" in lines[0]
    assert host.driver_of(VIRTIO) == "vfio-pci"


def test_another_kind_of_device_at_the_address_is_left_alone(host: Machine) -> None:
    host.tree.file(host.tree.real(VIRTIO) + "/device", "0x1042")
    host.tree.file(host.tree.real(VIRTIO) + "/virtio2/net/eth2/address", "52:54:00:99:99:99")
    failed, lines = boot(host)
    assert failed == 1 and host.driver_of(VIRTIO) == "virtio-pci" and "another device is there" in lines[1]


def test_a_device_that_is_gone_keeps_no_other_from_coming_up(host: Machine) -> None:
    host.tree.remove("/sys/bus/pci/devices/" + NIC)
    host.tree.remove("/sys/class/net/eth1")
    host.tree.remove("/sys/devices/pci0000:00/" + NIC)
    failed, lines = boot(host)
    assert failed == 1 and "no such device" in lines[0] and host.driver_of(VIRTIO) == "vfio-pci"


def test_a_device_without_its_driver_yet_is_taken_by_address(host: Machine) -> None:
    host.unbind(NIC)
    failed, lines = boot(host)
    assert failed == 0 and "could not be checked" in lines[0]


# --- which of several it is ---

SERIALS = {"management": "aa-aa-aa-aa-aa-aa-aa-01", "data": "bb-bb-bb-bb-bb-bb-bb-02"}


def shifted(host: Machine, serials: dict[str, str] | None = None, constant: bool = False) -> None:
    """Deploy with the second of two NICs of one kind, and boot: a bus more, and their driver is not there yet."""
    for name, address, mac in (("management", A, "52:54:00:00:00:20"), ("data", B, "52:54:00:00:00:21")):
        host.tree.pci(address, driver="ice")
        host.tree.net(name, address, mac)
        if serials:
            host.tree.config(address, SERIALS["data" if constant else name])
    converge(host, Request([{"interface": "data"}], accept_unsafe=True))
    reboot(host, b_05="ice")
    host.unbind(A)
    host.unbind(B)
    move(host, B, C)
    move(host, A, B)


@pytest.fixture
def late(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host whose drivers do not come while this tool waits."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    return machine


def test_where_nothing_tells_two_devices_apart_none_is_taken(late: Machine) -> None:
    shifted(late)
    failed, lines = boot(late)
    assert failed == 1 and [late.driver_of(address) for address in (B, C)] == [None, None]
    assert "skipped, its MAC could not be checked" in lines[0] and "it could as well be " + C in lines[0]


def test_a_serial_number_tells_them_apart(late: Machine) -> None:
    shifted(late, SERIALS)
    failed, lines = boot(late)
    assert failed == 0 and [late.driver_of(address) for address in (B, C)] == [None, "vfio-pci"], lines
    assert "found by its serial number at " + C in lines[0]
    late.requests.clear()
    assert boot(late)[0] == 0 and late.requests == []


def test_another_serial_number_at_the_address_is_refused(late: Machine) -> None:
    shifted(late, SERIALS)
    late.tree.remove("/sys/bus/pci/devices/" + C)
    failed, lines = boot(late)
    assert failed == 1 and late.driver_of(B) is None
    assert "skipped, another serial number is there: " + SERIALS["management"] in lines[0]


def test_a_serial_number_that_all_have_tells_nothing(late: Machine) -> None:
    shifted(late, SERIALS, constant=True)
    failed, lines = boot(late)
    assert failed == 1 and [late.driver_of(address) for address in (B, C)] == [None, None], lines


def test_a_serial_number_does_not_overrule_another_mac(late: Machine) -> None:
    shifted(late, SERIALS, constant=True)
    late.tree.remove("/sys/bus/pci/devices/" + C)
    late.tree.net("new", B, "52:54:00:00:00:20")
    failed, lines = boot(late)
    assert failed == 1 and "another MAC is there" in lines[0]


@pytest.mark.parametrize("constant", [False, True])
def test_what_is_shown_later_is_waited_for(machine: Machine, monkeypatch: pytest.MonkeyPatch, constant: bool) -> None:
    drivers_are_loading(machine, monkeypatch)
    shifted(machine, SERIALS if constant else None, constant)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        number = len(slept) - 1
        machine.tree.net("late%d" % number, (B, C)[number], "52:54:00:00:00:2%d" % number)
        machine.tree.bind((B, C)[number], "ice")

    monkeypatch.setattr(_boot.time, "sleep", sleep)
    failed, lines = boot(machine)
    assert failed == 0 and len(slept) == 2, lines
    assert [machine.driver_of(address) for address in (B, C)] == ["ice", "vfio-pci"]
    assert "found by its MAC" in lines[0]


def test_other_devices_that_show_who_they_are_are_no_rivals(alike: Machine) -> None:
    alike.tree.pci(C, driver="e1000e")
    alike.tree.net("eth7", C, "52:54:00:00:00:77")
    alike.tree.pci("0000:07:00.1")  # another function
    alike.tree.pci("0000:08:00.0", driver="vfio-pci")
    alike.unbind(A)
    alike.unbind(B)
    failed, lines = boot(alike)  # nor are the two each other's
    assert failed == 0 and all("its MAC could not be checked: it has no interface" in line for line in lines)


def test_a_device_that_is_found_elsewhere_leaves_its_address_to_nobody(alike: Machine) -> None:
    alike.unbind(A)
    move(alike, A, C)
    move(alike, B, A)
    failed, lines = boot(alike)
    assert failed == 1 and alike.driver_of(A) == "vfio-pci" and alike.driver_of(C) is None
    assert any("skipped, another declared device is there" in line for line in lines)


def test_nothing_is_waited_for_where_everything_is_there(alike: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers_are_loading(alike, monkeypatch)
    monkeypatch.setattr(_boot.time, "sleep", lambda _seconds: pytest.fail("it waits"))
    for _run in range(2):
        assert boot(alike)[0] == 0


def test_an_interface_that_comes_late_is_waited_for(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers_are_loading(host, monkeypatch)
    host.unbind(NIC)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            host.bind(NIC, "e1000e")

    monkeypatch.setattr(_boot.time, "sleep", sleep)
    failed, lines = boot(host)
    assert failed == 0 and len(slept) == 3 and "could not be checked" not in lines[0]


def test_a_mounted_disk_is_refused_at_boot_too(host: Machine) -> None:
    host.tree.block("sda", host.tree.real(NIC) + "/host0", "8:0")
    host.tree.mounts(("8:0", "/", "/dev/sda"))
    failed, lines = boot(host)
    assert failed == 1 and "mounted" in lines[0] and host.driver_of(NIC) == "e1000e"


def test_a_device_that_fails_is_put_back(host: Machine) -> None:
    host.load("vfio-pci")
    host.broken.add("vfio-pci")
    failed, lines = boot(host)
    assert failed == 2 and "FAILED" in lines[0]
    assert (host.driver_of(NIC), host.driver_of(VIRTIO)) == ("e1000e", "virtio-pci")
    assert not host.root.exists("/sys/class/iommu/noiommu-" + NIC)


def test_without_the_kernel_module_nothing_is_touched(host: Machine) -> None:
    host.broken.add("noiommu")
    failed, lines = boot(host)
    assert failed == 2 and "no device was bound" in lines[0] and "could not be loaded" in lines[0]
    assert host.driver_of(NIC) == "e1000e"


def test_an_iommu_that_works_by_now_overrules_insecure_bindings(host: Machine) -> None:
    host.tree.group(1, NIC)
    failed, lines = boot(host)
    assert failed == 2 and "hardware IOMMU" in lines[0] and host.driver_of(NIC) == "e1000e"


def test_nothing_declared_is_no_failure(machine: Machine) -> None:
    assert boot(machine)[0] == 0


# --- MAC addresses that do not last ---


@pytest.fixture
def random(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host with a NIC that makes its address up, deployed and booted."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    machine.tree.pci(A, "8086:154c", driver="iavf")
    machine.tree.net("eth0", A, "5a:11:11:11:11:11")
    machine.tree.file("/sys/class/net/eth0/addr_assign_type", "1")
    converge(machine, Request([{"address": A}], accept_unsafe=True))
    reboot(machine, a_04="iavf")
    machine.tree.file("/sys/class/net/eth0/address", "ce:22:22:22:22:22")
    return machine


def test_a_device_whose_address_is_made_up_is_found_all_the_same(random: Machine) -> None:
    failed, lines = boot(random)
    assert failed == 0 and random.driver_of(A) == "vfio-pci", lines


def test_another_device_that_was_given_the_address_is_left_alone(alike: Machine) -> None:
    alike.tree.pci(C, driver="e1000e")
    alike.tree.net("eth7", C, "52:54:00:00:00:20")
    alike.tree.file("/sys/class/net/eth7/addr_assign_type", "3")
    failed, lines = boot(alike)
    assert failed == 0 and alike.driver_of(C) == "e1000e", lines


# --- identity without a MAC ---

DISK, ELSEWHERE = "0000:00:06.0", "0000:00:0a.0"


@pytest.fixture
def disks(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host with two disks of one kind, one of them given to the data plane, and booted."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    tree = machine.tree
    for number, address in enumerate((DISK, "0000:00:08.0")):
        tree.pci(address, "144d:a808", "010802", driver="nvme")
        tree.file(tree.real(address) + "/nvme/nvme%d/serial" % number, "S%d" % number)
    converge(machine, Request([{"serial": "S0"}], accept_unsafe=True, backend="dkms"))
    machine.unbind(DISK)
    machine.drop(DISK)
    tree.file(tree.real(DISK) + "/driver_override", "(null)")
    machine.bind(DISK, "nvme")
    return machine


def test_a_disk_is_found_by_its_serial_number(disks: Machine) -> None:
    move(disks, DISK, ELSEWHERE)
    failed, lines = boot(disks)
    assert failed == 0 and "found by its serial number at " + ELSEWHERE in lines[0]
    assert disks.driver_of(ELSEWHERE) == "vfio-pci" and disks.driver_of("0000:00:08.0") == "nvme"
    assert disks.root.exists("/dev/vfio/by-serial/S0.0")


def test_another_disk_of_its_kind_is_left_alone(disks: Machine) -> None:
    disks.tree.file(disks.tree.real(DISK) + "/nvme/nvme0/serial", "S7")
    failed, lines = boot(disks)
    assert failed == 1 and "another serial number is there: S7" in lines[0] and disks.driver_of(DISK) == "nvme"


@pytest.fixture(params=["LVM2_member", "ext4"])
def written(disks: Machine, request: pytest.FixtureRequest) -> Machine:
    """Both disks have data on them: one the data plane's, one the host's."""
    for number, address in enumerate((DISK, "0000:00:08.0")):
        folder = "%s/nvme/nvme%d" % (disks.tree.real(address), number)
        disks.tree.block("nvme%dn1" % number, folder, "259:%d" % number)
        disks.tree.file("/run/udev/data/b259:%d" % number, "E:ID_FS_TYPE=" + request.param)
    return disks


def data_on(name: str) -> list[str]:
    return [name + " is a member of LVM", name + " holds ext4 (data)"]


def test_what_the_data_plane_wrote_does_not_keep_its_disk_from_it(written: Machine) -> None:
    move(written, DISK, ELSEWHERE)
    written.tree.link("/sys/class/block/nvme0n1", written.tree.real(ELSEWHERE) + "/nvme/nvme0/nvme0n1")
    failed, lines = boot(written)
    assert failed == 0 and written.driver_of(ELSEWHERE) == "vfio-pci", lines


def test_nor_from_the_next_deploy(written: Machine) -> None:
    converge(written, Request([{"serial": "S0"}], accept_unsafe=True, backend="dkms"))
    assert written.driver_of(DISK) == "vfio-pci"


def test_the_hosts_own_volume_is_refused_beside_it(written: Machine) -> None:
    with pytest.raises(Refused, match=r"holds (a part of a volume|data)\.") as caught:
        binding(written, Request([{"serial": "S0"}, {"serial": "S1"}], accept_unsafe=True, backend="dkms"))
    assert [refusal.evidence[0] in data_on("nvme1n1") for refusal in caught.value.refusals] == [True]
    # Also where the number is not the disk's own.
    for number, address in enumerate((DISK, "0000:00:08.0")):
        written.tree.file("%s/nvme/nvme%d/serial" % (written.tree.real(address), number), "S0")
    with pytest.raises(Refused) as caught:
        binding(written, Request([{"address": DISK}], accept_unsafe=True, backend="dkms"))
    assert [refusal.evidence[0] in data_on("nvme0n1") for refusal in caught.value.refusals] == [True]


def test_a_disk_that_was_given_back_is_the_hosts(written: Machine) -> None:
    request = Request([{"serial": "S0"}], accept_unsafe=True, backend="dkms")
    converge(written, NOTHING)
    with pytest.raises(Refused, match=r"holds (a part of a volume|data)\."):
        binding(written, request)


@pytest.mark.parametrize("use", ["mounted", "swap", "held"])
def test_a_use_of_it_is_refused_all_the_same(written: Machine, use: str) -> None:
    if use == "mounted":
        written.tree.mounts(("259:0", "/srv", "/dev/nvme0n1"))
    elif use == "swap":
        written.tree.file("/proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1 partition 1 0 -2")
    else:
        written.tree.hold("dm-0", "253:0", "nvme0n1")
    failed, _lines = boot(written)
    assert failed == 1 and written.driver_of(DISK) == "nvme"
    with pytest.raises(Refused):
        binding(written, Request([{"serial": "S0"}], accept_unsafe=True, backend="dkms"))


def test_a_disk_that_was_taken_without_its_driver_is_known_with_it(disks: Machine) -> None:
    disks.tree.config(DISK, SERIALS["data"])
    bindings = json.loads(disks.root.read_text(BINDINGS))
    bindings["devices"][0]["serials"] = [SERIALS["data"]]
    disks.tree.file(BINDINGS, json.dumps(bindings))
    move(disks, DISK, ELSEWHERE)
    failed, lines = boot(disks)
    assert failed == 0 and disks.driver_of(ELSEWHERE) == "vfio-pci", lines


def test_of_two_disks_without_a_driver_none_is_taken(disks: Machine) -> None:
    for address in (DISK, "0000:00:08.0"):
        disks.unbind(address)
        disks.tree.remove(disks.tree.real(address) + "/nvme")
    failed, lines = boot(disks)
    assert failed == 1 and "serial number could not be checked" in lines[0] and "0000:00:08.0" in lines[0]


def test_a_disk_whose_driver_is_not_there_is_taken_by_address(disks: Machine) -> None:
    disks.unbind(DISK)
    disks.tree.remove(disks.tree.real(DISK) + "/nvme")
    failed, lines = boot(disks)
    assert failed == 0 and "serial number could not be checked" in lines[0]


def test_a_device_is_found_in_its_slot(host: Machine) -> None:
    tree = host.tree
    tree.remove("/sys/class/net/eth1")
    tree.remove(tree.real(NIC) + "/net")
    bindings = json.loads(host.root.read_text("/etc/noiommu/bindings.json"))
    bindings["devices"][0].update(macs=[], slot="3")
    tree.file("/etc/noiommu/bindings.json", json.dumps(bindings))
    tree.file("/sys/bus/pci/slots/3/address", FREE[:-2])
    move(host, NIC, FREE)
    failed, lines = boot(host)
    assert failed == 0 and "found by its slot at " + FREE in lines[0]


def test_a_signal_ends_the_run_and_puts_its_device_back(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    bind = host.bind

    def interrupted(address: str, driver: str) -> None:
        bind(address, driver)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(host, "bind", interrupted)
    with pytest.raises(HostError, match="ended this run"):
        boot(host)
    assert (host.driver_of(NIC), host.driver_of(VIRTIO)) == ("e1000e", "virtio-pci")


def test_the_nodes_belong_to_the_group_when_the_unit_is_done(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """udev's rule does the same, but a service that is ordered after the unit may be sooner."""
    given = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((path, uid, gid)))
    host.tree.pci("0000:00:1e.0")
    host.tree.group(77, "0000:00:1e.0", name="noiommu", node=None)
    host.tree.file("/dev/vfio/77")  # of somebody else's device
    host.tree.file("/etc/group", "dpdk:x:990:")
    boot(host)
    assert given == []
    host.tree.file("/var/lib/noiommu/access.json", '{"version": 1, "group": "dpdk"}')
    boot(host)
    ours = [path for path in chardevs(host.root) if path != "/dev/vfio/77"]
    assert given == [(host.root.path(path), 0, 990) for path in ours] and len(ours) == 2
    assert {host.tree.at(path).stat().st_mode & 0o777 for path in ours} == {0o660}


def test_status(host: Machine) -> None:
    tool = Boot(host.kernel, GuardContext(host.root), print)
    assert tool.status()["ok"] is False
    tool.bind()
    status = tool.status()
    assert status["ok"] and [device["driver"] for device in status["devices"]] == ["vfio-pci", "vfio-pci"]
    host.tree.remove("/sys/bus/pci/devices/" + NIC)
    assert tool.status()["devices"][0] == {"address": NIC, "present": False, "ok": False}


# --- the copy on the host ---


def test_the_installed_copy_runs_on_its_own(host: Machine) -> None:
    with zipfile.ZipFile(host.tree.at(PROGRAM)) as program:
        sources = {name: program.read(name).decode() for name in program.namelist()}
    for name, source in sources.items():
        assert "ansible_collections" not in source, name
        assert "SPDX-License-Identifier" in source or name.endswith(("__main__.py", "__init__.py")), name
    done = subprocess.run(
        [sys.executable, "-I", str(host.tree.at(PROGRAM)), "status"],
        capture_output=True,
        text=True,
        check=False,
    )
    # It looks at the machine that runs this test, which has no bindings.
    assert json.loads(done.stdout) == {"backend": None, "ok": True, "devices": []}, done.stderr
    converge(host, NOTHING)
    assert not host.root.exists("/usr/local/lib/noiommu")


def test_the_unit_orders_itself_before_the_network(host: Machine) -> None:
    unit = host.root.read_text(UNIT)
    assert "Before=network-pre.target" in unit and "Wants=network-pre.target" in unit
    assert "-I -B %s bind" % PROGRAM in unit


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["bind", "extra"]])
def test_usage(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    assert _boot.main(argv) == 2
    assert "usage" in capsys.readouterr().out
