# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which BARs may be write-combined: by sysfs and the configuration space of devices as lspci shows real ones."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy import write_combining
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.declared_bars import choose_declared
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:00:05.0"
KIB, MIB = 1 << 10, 1 << 20
X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu msr pat\n"


def msix(table: int, pending: int | None = None) -> bytes:
    """MSI-X: its kind, its size, and where the table and the pending bits are."""
    pending = table if pending is None else pending
    return b"\x11" + struct.pack("<HII", 7, 0x1000 | table, 0x2000 | pending)


def virtio(structure: int, window: int) -> bytes:
    return b"\x09" + bytes([16, structure, window]) + bytes(11)


def ena(tree: Tree) -> None:
    tree.pci(NIC, "1d0f:ec20", driver="ena")
    tree.bars(NIC, {0: (16 * KIB, "mem"), 1: (8 * KIB, "mem"), 2: (MIB, "pref")})
    tree.capabilities(NIC, b"\x01\0\0", msix(1))


def i40e(tree: Tree) -> None:
    tree.pci(NIC, "8086:1572", driver="i40e")
    tree.bars(NIC, {0: (8 * MIB, "pref64"), 3: (32 * KIB, "pref64")})
    tree.capabilities(NIC, msix(3))


def ivshmem(tree: Tree) -> None:
    tree.pci(NIC, "1af4:1110", "050000")
    tree.bars(NIC, {0: (4 * KIB, "mem"), 2: (4 * MIB, "pref64")})
    tree.capabilities(NIC)


def virtio_net(tree: Tree) -> None:
    tree.pci(NIC, "1af4:1041", driver="virtio-pci")
    tree.bars(NIC, {1: (4 * KIB, "mem"), 4: (16 * KIB, "pref64")})
    tree.capabilities(NIC, msix(1), virtio(1, 4), virtio(2, 4))


def virtio_fs(tree: Tree) -> None:
    """With a window of shared memory, which is no register."""
    tree.pci(NIC, "1af4:105a", "018000", driver="virtio-pci")
    tree.bars(NIC, {0: (4 * KIB, "mem"), 2: (MIB, "pref64"), 4: (16 * KIB, "pref64")})
    tree.capabilities(NIC, virtio(1, 4), virtio(8, 2))


def bnxt(tree: Tree) -> None:
    tree.pci(NIC, "14e4:16d7", driver="bnxt_en")
    tree.bars(NIC, {0: (64 * KIB, "pref64"), 2: (MIB, "pref64"), 4: (32 * KIB, "pref64")})
    tree.capabilities(NIC, msix(4))


def nvme(tree: Tree) -> None:
    tree.pci(NIC, "1d0f:8061", "010802", driver="nvme")
    tree.bars(NIC, {0: (16 * KIB, "pref64")})
    tree.capabilities(NIC)


def odd(tree: Tree) -> None:
    tree.pci(NIC, "abcd:0001", "118000")
    bars = {0: (4 * KIB, "mem"), 1: (256, "io"), 2: (256, "pref"), 3: (MIB, "unset"), 4: (MIB, "pref")}
    tree.bars(NIC, bars)
    tree.capabilities(NIC, msix(0, 4))


def choose(tree: Tree, *declared: str) -> write_combining.Choice:
    device = PciBus(tree.root).get(NIC)
    assert device is not None
    return write_combining.choose_bars(tree.root, device, declared)


@pytest.mark.parametrize(
    "make,declared,bars",
    [
        (ena, ["2"], (2,)),
        (ena, ["prefetchable"], (2,)),
        (ivshmem, ["prefetchable"], (2,)),
        (virtio_fs, ["2"], (2,)),
        (virtio_fs, ["prefetchable"], (2,)),
        (bnxt, ["2"], (2,)),  # whoever names it by number has read the manual
        (ena, ["2", "2"], (2,)),
    ],
)
def test_what_holds_data_may_be_named(tree: Tree, make, declared: list[str], bars: tuple[int, ...]) -> None:
    make(tree)
    assert choose(tree, *declared) == (bars, [])


@pytest.mark.parametrize(
    "make,window,reason,evidence",
    [
        (ena, 0, "it is not prefetchable, so it holds registers", "BAR 0: 16384 bytes, memory, not prefetchable"),
        (ena, 4, "the device has no such BAR", "BAR 2: 1048576 bytes, memory, prefetchable"),
        (i40e, 0, "BAR 0 of Intel's network controllers", "is 8086:1572, class 020000"),
        (i40e, 1, "BAR 0 has 64 bits and takes its place", "BAR 0: 8388608 bytes"),
        (i40e, 3, "it holds the MSI-X table", "capability MSI-X"),
        (virtio_net, 4, "it holds registers of virtio", "vendor-specific capabilities"),
        (bnxt, 0, "BAR 0 of Broadcom's network controllers", "14e4:16d7"),
        (nvme, 0, "BAR 0 of NVMe controllers", "class 010802"),
        (odd, 1, "it is no memory, but I/O", "BAR 1: 256 bytes, I/O"),
        (odd, 2, "it is not made of whole pages", "BAR 2: 256 bytes"),
        (odd, 3, "gave it an address", "BAR 3"),
        (odd, 4, "the MSI-X table or its pending bits", "/config"),
    ],
)
def test_what_holds_registers_is_refused(tree: Tree, make, window: int, reason: str, evidence: str) -> None:
    make(tree)
    bars, (refusal,) = choose(tree, str(window))
    assert bars == () and refusal.code == "write_combining"
    assert refusal.message.startswith("BAR %d of %s cannot be write-combined: " % (window, NIC))
    assert reason in refusal.message and evidence in "; ".join(refusal.evidence) and refusal.remedy


@pytest.mark.parametrize(
    "make,evidence",
    [
        (i40e, ["BAR 0 of Intel's network controllers", "it holds the MSI-X table"]),
        (virtio_net, ["it is not prefetchable", "it holds registers of virtio"]),
        (bnxt, ["BAR 2: 1048576 bytes, memory, prefetchable: it may hold the registers, as no other one does"]),
        (nvme, ["BAR 0 of NVMe controllers"]),
    ],
)
def test_prefetchable_takes_nothing_that_may_hold_the_registers(tree: Tree, make, evidence: list[str]) -> None:
    """They have to be somewhere: a BAR that is not prefetchable, and not the MSI-X table's alone."""
    make(tree)
    bars, (refusal,) = choose(tree, "prefetchable")
    assert bars == () and "known to hold data only" in refusal.message
    for line in evidence:
        assert line in "; ".join(refusal.evidence)


@pytest.mark.parametrize("declared", [["6"], ["-1"], ["two"], ["2", "prefetchable"], ["02"], [""]])
def test_what_names_no_bar_is_refused(tree: Tree, declared: list[str]) -> None:
    ena(tree)
    bars, (refusal,) = choose(tree, *declared)
    assert bars == () and "is not a choice of BARs" in refusal.message


def test_a_device_that_does_not_answer_is_not_trusted(tree: Tree) -> None:
    ivshmem(tree)
    tree.file(tree.real(NIC) + "/config", b"\xff" * 256)
    assert "cannot be read" in choose(tree, "2").refusals[0].message
    tree.file(tree.real(NIC) + "/config", b"\0" * 6)  # what is read without privileges may end before the capabilities
    assert "cannot be read" in choose(tree, "2").refusals[0].message
    tree.capabilities(NIC, b"\x05\0")
    tree.file(tree.real(NIC) + "/config", tree.root.read_bytes(tree.real(NIC), "config")[:0x40])
    assert "cannot be read" in choose(tree, "2").refusals[0].message


def test_a_list_of_capabilities_that_leads_back_to_itself_ends(tree: Tree) -> None:
    ivshmem(tree)
    config = bytearray(256)
    config[0x06], config[0x34], config[0x40], config[0x41] = 0x10, 0x40, 0x05, 0x40
    tree.file(tree.real(NIC) + "/config", bytes(config))
    assert choose(tree, "2").bars == (2,)


@pytest.mark.parametrize(
    "files,reason,evidence",
    [
        ({"/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\n"}, "only x86", "/proc/cpuinfo: no flags"),
        ({"/proc/cpuinfo": "flags\t\t: fpu msr\n"}, "no page attribute table", "no flag pat"),
        ({"/proc/cmdline": "quiet nopat ro"}, "was told not to use", "/proc/cmdline: nopat"),
        ({"/sys/hypervisor/type": "xen", "/sys/hypervisor/guest_type": "PV"}, "Xen", "guest_type: PV"),
    ],
)
def test_platforms_that_cannot(tree: Tree, files: dict[str, str], reason: str, evidence: str) -> None:
    for path, text in {"/proc/cpuinfo": X86, **files}.items():
        tree.file(path, text)
    (refusal,) = write_combining.platform_refusals(tree.root, "vfio-pci")
    assert refusal.code == "write_combining" and reason in refusal.message and evidence in refusal.evidence[0]


def test_platforms_that_can(tree: Tree) -> None:
    tree.file("/proc/cpuinfo", X86)
    tree.file("/sys/hypervisor/type", "xen")
    tree.file("/sys/hypervisor/guest_type", "HVM")
    assert write_combining.platform_refusals(tree.root, "vfio-pci") == []
    (refusal,) = write_combining.platform_refusals(tree.root, "uio_pci_generic")
    assert "Only what vfio-pci maps" in refusal.message


def test_where_nothing_is_declared_nothing_is_asked(tree: Tree) -> None:
    """An arm64 host without a wish is no refusal."""
    ena(tree)
    tree.file("/proc/cpuinfo", "Features\t: fp\n")
    device = PciBus(tree.root).get(NIC)
    assert device is not None
    assert choose_declared(tree.root, [(device, {"address": NIC})], "vfio-pci") == ({}, [], [])
