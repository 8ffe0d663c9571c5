# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Groups, safety classes, and the state of the host's IOMMU."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.iommu import (
    classify,
    group_report,
    host_iommu,
    read_groups,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

A, B, C, D = ("0000:00:0%d.0" % number for number in range(4, 8))


@pytest.fixture
def host(tree: Tree) -> Tree:
    for address in (A, B, C, D):
        tree.pci(address)
    return tree


def level(tree: Tree, address: str) -> tuple[str, str]:
    device = PciBus(tree.root).get(address)
    return classify(tree.root, device, read_groups(tree.root).get(device.iommu_group))


def test_safety_classes(host: Tree) -> None:
    host.group(3, A)
    host.group(4, B, name="noiommu", node="noiommu-" + B)
    host.group(5, C, name="vfio-noiommu", node=None)
    assert level(host, A) == ("isolated", "hardware IOMMU dmar0 confines its DMA")
    assert level(host, B).level == "unsafe" and "noiommu module" in level(host, B).reason
    assert level(host, C).level == "unsafe" and "VFIO's no-IOMMU" in level(host, C).reason
    assert level(host, D).level == "none"


def test_unsafe_interrupts_are_mentioned(host: Tree) -> None:
    host.group(3, A)
    host.file("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y")
    assert "forge interrupts" in level(host, A).reason


def test_report(host: Tree) -> None:
    host.group(12, A, B)
    host.group(5, C, name="vfio-noiommu", node=None)
    host.bind(C, "vfio-pci")
    host.file("/dev/vfio/noiommu-5")
    groups, devices = group_report(host.root, PciBus(host.root))
    assert [(group["group"], group["safety"], group["chardev"]) for group in groups] == [
        (5, "unsafe", "/dev/vfio/noiommu-5"),
        (12, "isolated", None),
    ]
    assert groups[0]["drivers"] == ["vfio-pci"] and groups[1]["devices"] == [A, B]
    assert [device["group"] for device in devices] == [12, 12, 5, None]
    assert devices[0]["iommu"] == "dmar0" and devices[0]["domain_type"] == "DMA"


def test_a_host_whose_only_groups_are_ours_has_no_iommu(host: Tree) -> None:
    host.group(0, B, name="noiommu", node="noiommu-" + B)
    host.group(1, C, name="vfio-noiommu", node=None)
    assert host_iommu(host.root).state == "absent"


def test_a_hardware_node_or_group_is_an_active_iommu(host: Tree) -> None:
    host.group(0, A, node=None)
    assert host_iommu(host.root) == ("active", [], [], None, [])
    host.group(1, B, node="dmar0")
    assert host_iommu(host.root).drivers == ["dmar0"]


def test_an_iommu_that_is_off_is_named_with_what_turns_it_on(host: Tree) -> None:
    host.file("/sys/firmware/acpi/tables/DMAR", b"DMAR")
    host.file("/proc/cmdline", "ro quiet intel_iommu=off")
    assert host_iommu(host.root) == ("firmware_off", [], ["DMAR"], "intel_iommu=on", ["intel_iommu=off"])


def iort(*kinds: int) -> bytes:
    nodes = b"".join(struct.pack("<BH", kind, 16) + bytes(13) for kind in kinds)
    return b"IORT" + bytes(32) + struct.pack("<II", len(kinds), 48) + bytes(4) + nodes


@pytest.mark.parametrize(
    "table,state",
    [
        (iort(0, 2), "absent"),
        (iort(0, 2, 4), "firmware_off"),
        (b"", "absent"),
        (iort(3), "firmware_off"),
        (iort(0)[:50], "absent"),
    ],
)
def test_an_arm_table_counts_only_with_an_smmu_in_it(host: Tree, table: bytes, state: str) -> None:
    host.file("/sys/firmware/acpi/tables/IORT", table)
    assert host_iommu(host.root).state == state
