# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The machine list: what is accepted, and that every mistake is told with a cause and a remedy."""

from __future__ import annotations

import pytest
from rig import spec
from rig.common import RigError

PAIR = {
    "machines": [
        {"name": "a", "nics": [{"model": "e1000e", "link": "w"}, {"model": "virtio-net-pci", "addr": "08"}]},
        {"name": "b", "iommu": "intel", "memory": 2048, "groups": ["g"], "vars": {"x": 1}, "nics": [{"link": "w"}]},
    ]
}


def test_defaults_and_addresses():
    a, b = spec.parse(PAIR)
    assert (a.image, a.memory, a.cpus, a.iommu) == ("debian12", 1024, 2, "none")
    assert [nic.address for nic in a.nics] == ["0000:00:10.0", "0000:00:08.0"]
    assert (b.iommu, b.memory, b.groups, b.vars, b.nics[0].model) == ("intel", 2048, ("g",), {"x": 1}, "e1000e")
    assert spec.links([a, b]) == {"w": [("a", 0), ("b", 0)]}


def test_nodes_disks_slots_and_functions():
    (machine,) = spec.parse(
        {
            "machines": [
                {
                    "name": "a",
                    "firmware": "uefi",
                    "numa": [{"memory": 512}, {"cpus": 2}],
                    "disks": [{}, {"model": "nvme"}],
                    "nics": [
                        {"slot": 7, "addr": "15"},
                        {"slot": 4, "addr": "14", "model": "igb"},
                        {"model": "virtio-net-pci", "addr": "16", "count": 64},
                    ],
                }
            ]
        }
    )
    assert (machine.firmware, machine.memory, machine.cpus) == ("uefi", 1536, 3)
    assert [(disk.model, disk.addr, disk.serial) for disk in machine.disks] == [
        ("virtio-blk-pci", "08.0", "rig-disk-0"),
        ("nvme", "09.0", "rig-disk-1"),
    ]
    assert [nic.address for nic in machine.nics[:2]] == ["0000:02:00.0", "0000:01:00.0"], (
        "buses in the order of the ports"
    )
    many = machine.nics[2:]
    assert len(many) == 64 == len({nic.mac for nic in many})
    assert (many[0].address, many[9].address, many[63].address) == ("0000:00:16.0", "0000:00:17.1", "0000:00:1d.7")


def test_what_is_doubled_is_named():
    with pytest.raises(RigError, match="same PCI address") as caught:
        spec.parse({"machines": [{"name": "a", "nics": [{"addr": "11"}, {}, {"addr": "11"}]}]})
    assert caught.value.evidence == "machine a: 0000:00:11.0"


def test_identical_lists_give_identical_macs_and_different_machines_different_ones():
    macs = [nic.mac for machine in spec.parse(PAIR) for nic in machine.nics]
    assert macs == [nic.mac for machine in spec.parse(PAIR) for nic in machine.nics]
    assert len(set(macs)) == len(macs)


@pytest.mark.parametrize(
    ("machine", "cause"),
    [
        ({"name": "Bad_Name"}, "host name"),
        ({"name": "a", "memroy": 1}, "unknown key 'memroy'"),
        ({"name": "a", "memory": "1G"}, "not a number"),
        ({"name": "a", "iommu": "amd"}, "'amd' is not possible"),
        ({"name": "a", "iommu": "smmuv3"}, "'smmuv3' is not possible"),
        ({"name": "a", "architecture": "arm64", "iommu": "intel"}, "'intel' is not possible"),
        ({"name": "a", "architecture": "arm64", "firmware": "bios"}, "'bios' is not possible"),
        ({"name": "a", "architecture": "riscv64"}, "'riscv64' is not possible"),
        ({"name": "a", "vendor": "amd"}, "'amd' is not possible"),
        ({"name": "a", "architecture": "arm64", "vendor": "GenuineIntel"}, "'GenuineIntel' is not possible"),
        ({"name": "a", "groups": "g"}, "groups is a list"),
        ({"name": "a", "nics": ["e1000e"]}, "a NIC is a dictionary"),
        ({"name": "a", "nics": [{"model": "rtl8139"}]}, "'rtl8139' is not possible"),
        ({"name": "a", "nics": [{"mac": "53:54:00:00:00:01"}]}, "unicast MAC"),
        ({"name": "a", "nics": [{"mac": 190839262533}]}, "unicast MAC"),
        ({"name": "a", "nics": [{"addr": "02"}]}, "not a free PCI address"),
        ({"name": "a", "nics": [{"addr": 10}]}, "not a free PCI address"),
        ({"name": "a", "nics": [{"addr": "10.8"}]}, "not a free PCI address"),
        ({"name": "a", "nics": [{"addr": "10.1"}]}, "no NIC is function 0"),
        ({"name": "a", "nics": [{"addr": "10", "slot": 1}, {"addr": "10.1"}]}, "no NIC is function 0"),
        ({"name": "a", "disks": [{"addr": "10"}], "nics": [{"addr": "10.1"}]}, "no NIC is function 0"),
        ({"name": "a", "nics": [{"addr": "11"}, {}, {"addr": "11"}]}, "same PCI address"),
        ({"name": "a", "nics": [{}], "disks": [{"addr": "10"}]}, "same PCI address"),
        ({"name": "a", "nics": [{"slot": 1}, {"slot": 1}]}, "same slot"),
        ({"name": "a", "nics": [{"slot": 0}]}, "not a number"),
        ({"name": "a", "nics": [{"slot": 1, "addr": "10.1"}]}, "device of its own"),
        ({"name": "a", "nics": [{"model": "igb"}]}, "needs a slot"),
        ({"name": "a", "nics": [{"count": 2, "link": "w"}]}, "do not go together"),
        ({"name": "a", "nics": [{"count": 17, "addr": "1d"}]}, "do not fit"),
        ({"name": "a", "disks": [1]}, "a disk is a dictionary"),
        ({"name": "a", "disks": [{"model": "floppy"}]}, "'floppy' is not possible"),
        ({"name": "a", "disks": [{"serial": "a b"}]}, "plain serial number"),
        ({"name": "a", "disks": [{"addr": "08.1"}]}, "a device of its own"),
        ({"name": "a", "numa": [1]}, "a NUMA node is a dictionary"),
        ({"name": "a", "numa": [{"memory": 1}]}, "not a number"),
        ({"name": "a", "numa": [{}], "memory": 1024}, "those of the NUMA nodes"),
        ({"name": "a", "firmware": "uboot"}, "'uboot' is not possible"),
        ({"name": "a", "nics": [{"mac": "52:54:00:00:00:01"}, {"mac": "52:54:00:00:00:01"}]}, "same MAC"),
        ({"name": "a", "nics": [{"link": "lonely"}]}, "'lonely' has 1 end"),
        ("a", "a machine is a dictionary"),
    ],
)
def test_mistakes_are_told(machine, cause):
    with pytest.raises(RigError) as caught:
        spec.parse({"machines": [machine]})
    assert cause in caught.value.cause
    assert caught.value.evidence and caught.value.remedy


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"machines": []},
        {"machines": [{"name": "a"}], "vms": 1},
        {"machines": [{"name": "a"}, {"name": "a"}]},
    ],
)
def test_wrong_documents_are_told(document):
    with pytest.raises(RigError, match="machine list"):
        spec.parse(document)


def test_unreadable_lists_are_told(tmp_path):
    (tmp_path / "m.yml").write_text("machines: [", encoding="utf-8")
    for name in ("m.yml", "absent.yml"):
        with pytest.raises(RigError, match="cannot read"):
            spec.load(tmp_path / name)
