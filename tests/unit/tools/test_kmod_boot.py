# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The small machines that run the kernel module's selftests."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from kmod import boot, kernels, selftests

X86 = kernels.Kernel("6.12", "6.12.118+deb13-amd64", None)
ARM64 = kernels.Kernel("6.12-arm64", "6.12.118+deb13-arm64", None)
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


def line(kernel, **more):
    machine = boot.Machine(kernel, Path("noiommu.ko"), Path("x.c"), "x", {"key": "value"}, 1, **more)
    return boot.command(machine, Path("/vmlinuz"), Path("/initramfs"), Path("/log"))


def addresses(command):
    return {part.partition(",")[0]: part.partition("addr=")[2][:4] for part in command if "addr=" in part}


@pytest.mark.parametrize("gic", ["2", "3"])
def test_an_arm64_machine_has_the_same_devices_where_the_tests_look_for_them(gic):
    arm64, x86 = line(ARM64, gic=gic), line(X86)
    assert arm64[0] == "qemu-system-aarch64" and f"virt,gic-version={gic}" in arm64
    assert addresses(arm64) == addresses(x86) and len(addresses(x86)) == 5
    for command in (arm64, x86):
        append = command[command.index("-append") + 1]
        assert "panic_on_warn=1" in append and append.endswith(" key=value")
    assert "console=ttyAMA0" in arm64[arm64.index("-append") + 1]


def test_tests_of_one_architecture_do_not_run_on_the_other():
    x86, arm64 = (
        {(test.program, test.name) for test in selftests.SELFTESTS if test.runs_on(kernel)} for kernel in (X86, ARM64)
    )
    assert ("selftest.c", "selftest-iommu") in x86 and ("vfio_selftest.c", "v2m") in arm64
    assert {"selftest.c", "pin_selftest.c", "vfio_selftest.c"} == {program for program, _name in arm64}


def test_images_of_the_other_architecture_are_kept(tmp_path, monkeypatch):
    class Archive:
        release = "trixie"

        def __init__(self, *_arguments):
            pass

        def open(self):
            pass

        def names(self, _pattern):
            return ["linux-image"]

    def unpacked(_archive, _what, _packages, into):
        (into / "boot").mkdir(parents=True)
        (into / "boot" / f"vmlinuz-{into.name.removeprefix('linux-')}").touch()

    monkeypatch.setattr(kernels, "kmod_cache", lambda: tmp_path)
    monkeypatch.setattr("kmod.root.kmod_cache", lambda: tmp_path)
    monkeypatch.setattr(kernels, "Archive", Archive)
    monkeypatch.setattr(kernels, "unpacked", unpacked)
    (tmp_path / "linux-6.12.100+deb13-amd64").mkdir()
    for kernel in (X86, ARM64):
        kernels.boot_files(kernels.Kernel(kernel.series, kernel.release, Archive()))
    assert {path.name for path in tmp_path.iterdir()} == {f"linux-{X86.release}", f"linux-{ARM64.release}"}
