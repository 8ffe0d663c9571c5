# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What a small machine of the kernel module's tests is started with."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from kmod import boot, kernels

SECTORS = 3
OFFSET = 40  # of the payload, from the end of the setup code


def vmlinuz(path, payload):
    image = bytearray((SECTORS + 1) * 512 + OFFSET)
    image[0x1F1] = SECTORS
    struct.pack_into("<II", image, 0x248, OFFSET, len(payload))
    path.write_bytes(bytes(image) + payload + b"what follows")
    return path


@pytest.mark.parametrize("after", [b"", b"\1\2\3\4"], ids=["exact", "size appended"])
def test_a_kernel_in_xz_is_unpacked_once(tmp_path, after):
    packed = vmlinuz(tmp_path / "vmlinuz-6.1.0-57-amd64", lzma.compress(b"\x7fELF kernel") + after)
    unpacked = boot.unpacked_kernel(packed)
    assert unpacked == tmp_path / "vmlinux-6.1.0-57-amd64" and unpacked.read_bytes() == b"\x7fELF kernel"
    unpacked.write_bytes(b"kept")
    assert boot.unpacked_kernel(packed).read_bytes() == b"kept"


def test_a_kernel_that_is_packed_otherwise_unpacks_itself(tmp_path):
    packed = vmlinuz(tmp_path / "vmlinuz", b"\x28\xb5\x2f\xfd and so on")
    assert boot.unpacked_kernel(packed) == packed and list(tmp_path.iterdir()) == [packed]


def test_a_small_machine_is_emulated_by_the_qemu_that_the_rig_chose(monkeypatch):
    monkeypatch.setattr(boot, "emulator", lambda: ["/cache/ld.so", "/cache/qemu-system-x86_64"])
    machine = boot.Machine(
        kernels.Kernel("6.1", "6.1.0-57-amd64", None), Path("m.ko"), Path("t.c"), "t", {"k": "v"}, 9.0
    )
    line = boot.command(machine, Path("/vmlinux"), Path("/initramfs"), Path("/log"))
    assert line[:2] == ["/cache/ld.so", "/cache/qemu-system-x86_64"] and line[line.index("-kernel") + 1] == "/vmlinux"
    assert "k=v" in line[line.index("-append") + 1].split()
