# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Selectors that mean several devices, or devices by what outlives an address."""

from __future__ import annotations

import re

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.recorded import Recorded
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.tests.unit.support.selecting import select
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PORTS = ["0000:04:00.%d" % number for number in range(4)]
NVME, PF = "0000:07:00.0", "0000:08:00.0"
VFS = [Tree.vf_address(PF, index) for index in range(3)]


@pytest.fixture
def host(tree: Tree) -> Tree:
    """A card with four ports in slot 4, two of one maker; an NVMe disk in slot 7-1; a NIC with virtual functions."""
    for number, address in enumerate(PORTS):
        tree.pci(address, driver="igb")
        tree.net("eth%d" % number, address, "52:54:00:00:00:1%d" % number)
        tree.file(tree.real(address) + "/subsystem_vendor", "0x1028" if number < 2 else "0x103c")
        tree.file(tree.real(address) + "/subsystem_device", "0x0001")
        tree.config(address, "a0-36-9f-ff-ff-01-02-03")
    tree.file("/sys/bus/pci/slots/4/address", "0000:04:00")
    tree.file("/sys/bus/pci/slots/5/address", "0000:05:00")
    tree.file("/sys/bus/pci/slots/7-1/address", "0000:07:00")
    tree.pci(NVME, "144d:a808", "010802", driver="nvme")
    tree.file(tree.real(NVME) + "/nvme/nvme0/serial", "S4EWNX0R123456     ")
    tree.pci(PF, "8086:10c9", driver="igb")
    tree.net("pf0", PF, "52:54:00:00:00:20")
    tree.sriov(PF, number=3)
    return tree


def refused(tree: Tree, *selectors: dict, recorded: tuple = ()) -> HostError:
    with pytest.raises(HostError) as caught:
        select(tree, *selectors, recorded=recorded)
    assert caught.value.remedy and caught.value.evidence
    return caught.value


@pytest.mark.parametrize(
    "entry,found",
    [
        ({"address": "04:00.1-04:00.3"}, PORTS[1:]),
        ({"address": "0000:04:00.0, 0000:04:00.2-0000:04:00.3"}, [PORTS[0], *PORTS[2:]]),
        ({"address": "0000:04:00.0,04:00.0"}, PORTS[:1]),
        ({"vendor_device": "8086:10d3", "subsystem": "1028:0001"}, PORTS[:2]),
        ({"slot": "4"}, PORTS),
        ({"slot": "4.2"}, [PORTS[2]]),
        ({"slot": "7-1"}, [NVME]),
        ({"serial": "A0369FFFFF010203"}, PORTS),
        ({"serial": "S4EWNX0R123456"}, [NVME]),
        ({"pf": PF}, VFS),
        ({"pf": "pf0", "vf": ["0-1"]}, VFS[:2]),
        ({"pf": "52:54:00:00:00:20", "vf": ["0", "2"]}, [VFS[0], VFS[2]]),
        ({"pf": "08:00.0", "vf": ["all"], "count": 3}, VFS),
        ({"vendor_device": "8086:10ca", "count": 3}, VFS),
    ],
)
def test_each_means(host: Tree, entry: dict, found: list[str]) -> None:
    assert select(host, entry) == found


@pytest.mark.parametrize(
    "entry,message,evidence",
    [
        ({"address": "04:00.3-04:00.0"}, "not a range of PCI addresses", "lower one first"),
        ({"address": "0000:04:00.0-0001:04:00.0"}, "not a range of PCI addresses", "one domain"),
        (
            {"address": "09:00.0-09:00.7"},
            "No PCI device .* from 0000:09:00.0 to 0000:09:00.7",
            "available: 0000:04:00.0",
        ),
        ({"address": "04:00.0,04:00.9"}, "not a PCI address", "expected"),
        ({"vendor_device": "8086:10d3", "subsystem": "1028:9999"}, "has the subsystem", "subsystem 103c:0001"),
        ({"vendor_device": "8086:10d3", "subsystem": "dell"}, "not a vendor:device pair", "expected"),
        ({"slot": "9"}, "place in the slot 9", "/sys/bus/pci/slots/4: 0000:04:00"),
        ({"slot": "5"}, "slot 5 is empty", "/sys/bus/pci/slots/4: 0000:04:00"),
        ({"slot": "4.7"}, "lacks that function", "/sys/bus/pci/slots/4: 0000:04:00"),
        ({"serial": "00-00"}, "serial number 00-00", "serial a0-36-9f-ff-ff-01-02-03"),
        ({"pf": PF, "vf": ["2-4"]}, "has no virtual function 3, 4", "it has: 0, 1, 2"),
        ({"pf": PORTS[0]}, "has no virtual functions", "none"),
        ({"pf": PF, "vf": ["two"]}, "not an index", "a range such as 0-3"),
        ({"pf": PF, "vf": ["2-0"]}, "not an index", "a range such as 0-3"),
        (
            {"vendor_device": "8086:10d3", "count": 2},
            "means 4 devices, but the declared count is 2",
            "matched: 0000:04:00.3",
        ),
        ({"address": PF}, "has 3 virtual functions, which would be destroyed", "virtual function 0: " + VFS[0]),
    ],
)
def test_what_does_not_select_is_explained(host: Tree, entry: dict, message: str, evidence: str) -> None:
    error = refused(host, entry)
    assert re.search(message, error.message), error.message
    assert evidence in "\n".join(error.evidence)


def test_a_device_behind_a_switch_on_the_card_is_in_its_slot(host: Tree) -> None:
    host.pci("0000:05:00.0", "10b5:8747", "060400", header_type=1)
    host.pci("0000:06:01.0", "10b5:8747", "060400", below=host.real("0000:05:00.0"), header_type=1)
    host.pci("0000:07:02.0", below=host.real("0000:06:01.0"))
    assert select(host, {"slot": "5"}) == ["0000:07:02.0"]


def test_a_taken_disk_stays_selected_by_its_serial_number(host: Tree) -> None:
    host.remove(host.real(NVME) + "/nvme")
    record = Recorded(NVME, "144d:a808", [], [], ("S4EWNX0R123456",))
    assert select(host, {"serial": "S4EWNX0R123456"}, recorded=(record,)) == [NVME]
    host.remove("/sys/bus/pci/devices/" + NVME)
    assert "disappeared" in refused(host, {"serial": "S4EWNX0R123456"}, recorded=(record,)).message


def test_a_taken_device_that_disappeared_from_a_range_is_told(host: Tree) -> None:
    host.remove("/sys/bus/pci/devices/" + PORTS[1])
    record = Recorded(PORTS[1], "8086:10d3", [], [])
    assert "disappeared" in refused(host, {"address": "04:00.0-04:00.3"}, recorded=(record,)).message


def test_a_configuration_space_that_ends_early_or_runs_in_a_circle_has_no_serial_number(host: Tree) -> None:
    bus = PciBus(host.root)
    assert bus.get(PF).serials == []
    host.file(host.real(PF) + "/config", bytes(0x100) + b"\x01\x00\x01\x10" + bytes(60))
    assert PciBus(host.root).get(PF).serials == []
