# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that moved, and which of several alike is which."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.booting import (
    ALIKE,
    FREE,
    NIC,
    SERIALS,
    VIRTIO,
    A,
    B,
    C,
    move,
    reboot,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import NOTHING, binding, boot, converge


def drivers_are_loading(booted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 60.0)
    booted.tree.file("/run/udev/queue")


def originals(booted: Machine) -> dict[str, tuple[str, list[str]]]:
    """Return the recorded devices, each with its driver and its MAC addresses."""
    records = json.loads(booted.root.read_text("/var/lib/noiommu/originals.json"))["devices"]
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


def test_another_device_at_the_address_is_left_alone(booted: Machine) -> None:
    move(booted, NIC, FREE)
    booted.tree.remove(booted.tree.real(FREE))
    booted.tree.remove("/sys/bus/pci/devices/" + FREE)
    booted.tree.remove("/sys/class/net/eth1")
    booted.tree.pci(NIC, driver="e1000e")
    booted.tree.net("eth1", NIC, "52:54:00:99:99:99")
    failed, lines = boot(booted)
    assert failed == 1 and booted.driver_of(NIC) == "e1000e"
    assert "skipped, another MAC is there: 52:54:00:99:99:99" in lines[0]
    assert booted.driver_of(VIRTIO) == "vfio-pci"


def test_another_kind_of_device_at_the_address_is_left_alone(booted: Machine) -> None:
    booted.tree.file(booted.tree.real(VIRTIO) + "/device", "0x1042")
    booted.tree.file(booted.tree.real(VIRTIO) + "/virtio2/net/eth2/address", "52:54:00:99:99:99")
    failed, lines = boot(booted)
    assert failed == 1 and booted.driver_of(VIRTIO) == "virtio-pci" and "another device is there" in lines[1]


def test_a_device_without_its_driver_yet_is_taken_by_address(booted: Machine) -> None:
    booted.unbind(NIC)
    failed, lines = boot(booted)
    assert failed == 0 and "could not be checked" in lines[0]


def shifted(booted: Machine, serials: dict[str, str] | None = None, constant: bool = False) -> None:
    """Deploy with the second of two NICs of one kind, and boot: a bus more, and their driver is not there yet."""
    for name, address, mac in (("management", A, "52:54:00:00:00:20"), ("data", B, "52:54:00:00:00:21")):
        booted.tree.pci(address, driver="ice")
        booted.tree.net(name, address, mac)
        if serials:
            booted.tree.config(address, SERIALS["data" if constant else name])
    converge(booted, Request([{"interface": "data"}], accept_unsafe=True))
    reboot(booted, b_05="ice")
    booted.unbind(A)
    booted.unbind(B)
    move(booted, B, C)
    move(booted, A, B)


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


def test_an_interface_that_comes_late_is_waited_for(booted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers_are_loading(booted, monkeypatch)
    booted.unbind(NIC)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            booted.bind(NIC, "e1000e")

    monkeypatch.setattr(_boot.time, "sleep", sleep)
    failed, lines = boot(booted)
    assert failed == 0 and len(slept) == 3 and "could not be checked" not in lines[0]
