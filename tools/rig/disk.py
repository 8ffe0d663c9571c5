# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The parts of an image's disk: partition tables and file systems, made without loop devices or mounts."""

from __future__ import annotations

import shutil
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .common import RigError, run_logged

SECTOR = 512
ROOT_UUID = "6e6f696f-6d6d-4755-8000-000000000012"
ROOT_START = 2048  # sectors
ESP_ID = "6E6F-696F"  # how blkid writes the serial number of a FAT file system
TYPES = {
    "root": "0fc63daf-8483-4772-8e79-3d69d8477de4",  # any Linux file system, as Debian's installer has it
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
}
GPT_ENTRIES, GPT_ENTRY = 128, 128
GPT_TABLE = GPT_ENTRIES * GPT_ENTRY // SECTOR  # sectors, besides the header


@dataclass(frozen=True)
class Partition:
    """One partition; both ends in sectors, the last one included."""

    kind: str
    first: int
    last: int


def dos_entry(kind: int, start: int, sectors: int) -> bytes:
    """One bootable entry of a DOS partition table (LBA only)."""
    return struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, sectors)


def gpt(sectors: int, partitions: Sequence[Partition]) -> tuple[bytes, bytes]:
    """A GUID partition table: what goes to the start and to the end of a disk of this size."""
    table = b"".join(
        uuid.UUID(TYPES[part.kind]).bytes_le
        + uuid.uuid5(uuid.UUID(ROOT_UUID), part.kind).bytes_le  # the same each time
        + struct.pack("<QQQ", part.first, part.last, 0)
        + part.kind.encode("utf-16-le").ljust(72, b"\0")
        for part in partitions
    ).ljust(GPT_ENTRIES * GPT_ENTRY, b"\0")

    def header(here: int, other: int, entries: int) -> bytes:
        first, last = 2 + GPT_TABLE, sectors - 2 - GPT_TABLE
        disk = uuid.uuid5(uuid.UUID(ROOT_UUID), "disk").bytes_le
        size, places = 92, struct.pack("<QQQQ16s", here, other, first, last, disk)
        rest = struct.pack("<QIII", entries, GPT_ENTRIES, GPT_ENTRY, zlib.crc32(table))

        def whole(checksum: int) -> bytes:
            return struct.pack("<8sIIII", b"EFI PART", 0x10000, size, checksum, 0) + places + rest

        return whole(zlib.crc32(whole(0))).ljust(SECTOR, b"\0")

    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    boot = (bytes(446) + protective).ljust(510, b"\0") + b"\x55\xaa"
    end = sectors - 1
    return boot + header(1, end, 2) + table, table + header(end, 1, end - GPT_TABLE)


def fat(name: str, tree: Path, image: Path, mib: int, log: Path) -> Path:
    """A FAT file system with everything that is in a directory."""
    run_logged(
        f"image {name}: making the EFI system partition",
        [
            "sh",
            "-ec",
            'mkfs.vfat -i "$3" -C "$0" "$2" >/dev/null; mcopy -s -i "$0" "$1"/* ::',
            str(image),
            str(tree),
            str(mib << 10),
            ESP_ID.replace("-", ""),
        ],
        log,
    )
    return image


def ext4(name: str, root: Path, raw: Path, start: int, sectors: int, log: Path) -> None:
    """The root file system, inside a file that is a whole disk."""
    run_logged(
        f"image {name}: making the file system",
        [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "^metadata_csum_seed,^orphan_file",
            "-m",
            "0",
            "-U",
            ROOT_UUID,
            "-L",
            "root",
            "-d",
            str(root),
            "-E",
            f"offset={start * SECTOR},lazy_itable_init=0,lazy_journal_init=0",
            str(raw),
            f"{sectors * SECTOR >> 10}k",
        ],
        log,
        f"if full: raise disk_mib in the recipe; log: {log}",
    )


def qcow2(name: str, raw: Path, image: Path, log: Path) -> Path:
    """The disk as the machines' overlays want it."""
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)]
    run_logged(f"image {name}: converting to qcow2", command, log)
    return image


def copy_programs(name: str, root: Path, files: dict[str, str], tree: Path, packages: str) -> None:
    """Copy programs of the firmware's from the packages' place; what is missing is told with the packages' names."""
    absent = [str(root / source) for source in files.values() if not (root / source).is_file()]
    if absent:
        raise RigError(
            f"image {name} has nothing to boot UEFI firmware with",
            "missing: " + " ".join(absent),
            f"add {packages} to the recipe",
        )
    for target, source in files.items():
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, tree / target)


def kernels(name: str, root: Path) -> list[str]:
    """The releases of the kernels in a tree, the last one the newest; at least one."""
    found = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if not found:
        raise RigError(
            f"image {name} has no kernel", f"no {root}/boot/vmlinuz-*", "add a linux-image package to the recipe"
        )
    return found
