# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Images that UEFI firmware boots by systemd-boot: kernel-install makes their entries, or their unified images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from . import disk
from .common import RigError, run_logged

ESP_MIB = 384  # two kernels with their initial RAM disks, and as much again while one is replaced
MOUNTED = "boot/efi"  # where the guest's fstab has it
CMDLINE = "etc/kernel/cmdline"
PROGRAM = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
FILES = {"EFI/systemd/systemd-bootx64.efi": PROGRAM, "EFI/BOOT/BOOTX64.EFI": PROGRAM}
# kernel-install's own look for the partition, and for where it is mounted, would find this machine's disk. It reads
# /proc/self.
SCRIPT = """mount -t proc proc "$0/proc"
exec chroot "$0" env BOOT_ROOT="/$1" BOOT_MNT="/$1" kernel-install add "$2" "/boot/vmlinuz-$2"
"""


def packages(architecture: str) -> set[str]:
    """What such an image needs."""
    return {"systemd-boot", "dosfstools"}


def prepare(name: str, spec: dict[str, Any], root: Path, log: Path) -> None:
    """The EFI system partition's files, in the directory where it will be mounted."""
    if spec["architecture"] != "amd64":
        raise RigError(f"image {name} cannot be booted by systemd-boot", "only amd64 is tried", "leave out boot")
    esp = root / MOUNTED
    disk.copy_programs(name, root, FILES, esp, "systemd-boot")
    (esp / "loader/entries").mkdir(parents=True)
    (esp / "loader/loader.conf").write_text("timeout 0\n", encoding="utf-8")
    (esp / "loader/entries.srel").write_text("type1\n", encoding="utf-8")
    line, asked = root / CMDLINE, f"/{CMDLINE}" in spec["files"]
    if not asked:  # else kernel-install would take this machine's line
        line.write_text(f"root=UUID={disk.ROOT_UUID} ro {spec['cmdline']}\n", encoding="utf-8")
    for release in disk.kernels(name, root):
        run_logged(
            f"image {name}: kernel-install for {release}",
            ["unshare", "--mount", "sh", "-ec", SCRIPT, str(root), MOUNTED, release],
            log,
        )
    if not asked:
        line.unlink()
    made = [*esp.glob("loader/entries/*.conf"), *esp.glob("EFI/Linux/*.efi")]
    if not made:
        raise RigError(f"image {name} has nothing to boot", f"kernel-install made nothing in {esp}", f"read {log}")
    for entry in esp.glob("loader/entries/*.conf"):
        wrong = [line for line in entry.read_text(encoding="utf-8").splitlines() if f" /{MOUNTED}/" in line]
        if wrong:
            raise RigError(f"systemd-boot would not find what is in {entry.name}", "\n".join(wrong), f"read {log}")


def write(name: str, spec: dict[str, Any], root: Path, tmp: Path, log: Path) -> Path:
    """Partition table and both file systems in one file, converted to qcow2. bootctl wants a GUID partition table."""
    raw, tree = tmp / "disk.raw", tmp / "esp"
    sectors = int(spec["disk_mib"]) * 2048
    esp = disk.Partition("esp", disk.ROOT_START, disk.ROOT_START + ESP_MIB * 2048 - 1)
    system = disk.Partition("root", esp.last + 1, sectors - 2049)  # whole MiB, before the second table
    start, end = disk.gpt(sectors, [esp, system])
    shutil.move(root / MOUNTED, tree)
    (root / MOUNTED).mkdir()
    with raw.open("wb") as out:
        out.write(start)
        out.seek(esp.first * disk.SECTOR)
        out.write(disk.fat(name, tree, tmp / "esp.img", ESP_MIB, log).read_bytes())
        out.seek(sectors * disk.SECTOR - len(end))
        out.write(end)
    disk.ext4(name, root, raw, system.first, system.last - system.first + 1, log)
    return disk.qcow2(name, raw, tmp / "disk.qcow2", log)
