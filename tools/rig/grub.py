# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Images that GRUB boots: by a BIOS, by UEFI firmware, with Secure Boot; those of arm64 by UEFI firmware."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from . import disk
from .common import RigError, run_logged

ESP_MIB = 16
ESP_GRUB = "EFI/debian/grub.cfg"  # built into the signed GRUB
MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "configfile", "linux", "serial", "terminal")
# What an architecture is called by UEFI, by shim and by GRUB.
NAMES = {"amd64": ("X64", "x64", "x86_64-efi-signed"), "arm64": ("AA64", "aa64", "arm64-efi-signed")}


def esp_files(architecture: str) -> dict[str, str]:
    """Where the firmware looks on a disk that it has no boot entry for, and the signed programs that it finds there."""
    upper, lower, folder = NAMES[architecture]
    return {
        f"EFI/BOOT/BOOT{upper}.EFI": f"usr/lib/shim/shim{lower}.efi.signed",
        f"EFI/BOOT/mm{lower}.efi": f"usr/lib/shim/mm{lower}.efi.signed",
        f"EFI/BOOT/grub{lower}.efi": f"usr/lib/grub/{folder}/grub{lower}.efi.signed",
    }


def packages(architecture: str) -> set[str]:
    """What such an image needs."""
    signed = {"shim-signed", f"grub-efi-{architecture}-signed"}
    return signed | ({"grub-pc-bin"} if architecture == "amd64" else set())


def prepare(name: str, spec: dict[str, Any], root: Path, log: Path) -> None:
    """GRUB's settings in the tree."""
    release, boot = disk.kernels(name, root)[-1], root / "boot/grub"
    if spec["architecture"] == "amd64":
        without = shutil.ignore_patterns("*.img", "*.module")
        shutil.copytree(root / "usr/lib/grub/i386-pc", boot / "i386-pc", ignore=without)
    boot.mkdir(parents=True, exist_ok=True)
    serial = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"
    # update-grub replaces this one inside the guest, when a test changes the command line
    (boot / "grub.cfg").write_text(
        (serial if spec["architecture"] == "amd64" else "")
        + f"linux /boot/vmlinuz-{release} root=UUID={disk.ROOT_UUID} ro {spec['cmdline']}\n"
        f"initrd /boot/initrd.img-{release}\nboot\n",
        encoding="utf-8",
    )


def front(name: str, spec: dict[str, Any], root: Path, log: Path) -> bytes:
    """What goes in front of the first partition: boot and core image, where a BIOS is to boot it."""
    if spec["architecture"] != "amd64":
        return b""
    make = ["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", "/core.img", *MODULES]
    run_logged(f"image {name}: grub-mkimage", ["chroot", str(root), *make], log)
    core = (root / "core.img").read_bytes()
    (root / "core.img").unlink()
    mbr = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440]
    if len(core) > (disk.ROOT_START - 1) * disk.SECTOR:
        raise RigError("GRUB's core image does not fit", f"{len(core)} bytes", "use fewer modules in MODULES")
    return mbr.ljust(disk.SECTOR, b"\0") + core


def system_partition(name: str, architecture: str, root: Path, tmp: Path, log: Path) -> Path:
    """What UEFI firmware boots: the signed shim and the signed GRUB, which goes on with the settings of the tree."""
    tree = tmp / "esp"
    wanted = " and ".join(sorted(packages(architecture) - {"grub-pc-bin"}, reverse=True))
    disk.copy_programs(name, root, esp_files(architecture), tree, wanted)
    (tree / ESP_GRUB).parent.mkdir()
    (tree / ESP_GRUB).write_text(
        f"search --fs-uuid --set=root {disk.ROOT_UUID}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n",
        encoding="utf-8",
    )
    return disk.fat(name, tree, tmp / "esp.img", ESP_MIB, log)


def write(name: str, spec: dict[str, Any], root: Path, tmp: Path, log: Path) -> Path:
    """Partition table, boot loader and both file systems in one file, converted to qcow2."""
    raw = tmp / "disk.raw"
    size, sectors = int(spec["disk_mib"]) << 20, ESP_MIB * 2048
    esp_start = size // disk.SECTOR - sectors
    with raw.open("wb") as out:
        out.write(front(name, spec, root, log))
        out.seek(446)
        out.write(
            disk.dos_entry(0x83, disk.ROOT_START, esp_start - disk.ROOT_START)
            + disk.dos_entry(0xEF, esp_start, sectors)
            + bytes(32)
            + b"\x55\xaa"
        )
        out.truncate(size)
        out.seek(esp_start * disk.SECTOR)
        out.write(system_partition(name, spec["architecture"], root, tmp, log).read_bytes())
    disk.ext4(name, root, raw, disk.ROOT_START, esp_start - disk.ROOT_START, log)
    return disk.qcow2(name, raw, tmp / "disk.qcow2", log)
