# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual functions at boot: made again, followed, waited for."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    boot,
    converge,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import (
    MAC,
    PF,
    THREE_OF_FOUR,
    VFS,
)


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
