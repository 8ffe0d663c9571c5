# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices without a permanent MAC address: disks, slots, made-up addresses."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.booting import (
    FREE,
    NIC,
    SERIALS,
    A,
    C,
    move,
    reboot,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import NOTHING, binding, boot, converge

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


def test_a_device_is_found_in_its_slot(booted: Machine) -> None:
    tree = booted.tree
    tree.remove("/sys/class/net/eth1")
    tree.remove(tree.real(NIC) + "/net")
    bindings = json.loads(booted.root.read_text("/etc/noiommu/bindings.json"))
    bindings["devices"][0].update(macs=[], slot="3")
    tree.file("/etc/noiommu/bindings.json", json.dumps(bindings))
    tree.file("/sys/bus/pci/slots/3/address", FREE[:-2])
    move(booted, NIC, FREE)
    failed, lines = boot(booted)
    assert failed == 0 and "found by its slot at " + FREE in lines[0]
