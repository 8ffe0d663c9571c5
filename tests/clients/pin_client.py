# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""A client of /dev/noiommu: pins memory for a device, compares what it is told with pagemap, prints JSON.

Runs on the managed host with the standard library of Python 3.8, as a script or imported. Exit status 0 means that the
report is complete, whatever is in it; 2 means that it could not be made.

    pin_client.py 0000:01:00.0
    pin_client.py --size 64M --huge 2M 0000:01:00.0
    pin_client.py --hold 0000:01:00.0            print the report, then keep the memory until standard input closes
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import mmap
import os
import re
import struct
import sys
from typing import Any, List, Tuple

DEVICE = "/dev/noiommu"
MAP_HUGETLB, MAP_HUGE_SHIFT = 0x40000, 26

# The structures of kmod/include/uapi/noiommu.h; size and flags come first.
INFO = struct.Struct("=IIII")
MAP = struct.Struct("=IIIBBBBQQQQII")
QUERY = struct.Struct("=IIQQQII")
UNMAP = struct.Struct("=IIQQ")
EXTENT = struct.Struct("=QQ")

libc = ctypes.CDLL(None, use_errno=True)

Extents = List[Tuple[int, int]]


def _command(number: int) -> int:
    return (0xE9 << 8) + number  # _IO(NOIOMMU_TYPE, number)


def parse_address(text: str) -> Tuple[int, int, int, int]:
    """Segment, bus, device and function of a PCI address."""
    found = re.fullmatch(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-1][0-9a-f])\.([0-7])", text)
    if not found:
        raise ValueError(f"{text!r} is not a PCI address like 0000:01:00.0")
    segment, bus, device, function = (int(part, 16) for part in found.groups())
    return segment, bus, device, function


class Pinner:
    """An open /dev/noiommu. Errors are OSError with the errno that the header describes."""

    def __init__(self, path: str = DEVICE) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Pinner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Undo all mappings, unless another process has the file too."""
        os.close(self.fd)

    def _call(self, number: int, layout: struct.Struct, *values: int) -> Tuple[bool, Tuple[int, ...]]:
        # Not fcntl.ioctl(), which does not promise to return what was written if the call fails
        arg = ctypes.create_string_buffer(layout.pack(layout.size, *values), layout.size)
        ret = libc.ioctl(self.fd, ctypes.c_ulong(_command(number)), arg)
        error = ctypes.get_errno() if ret else 0
        if error not in (0, errno.EMSGSIZE):
            raise OSError(error, os.strerror(error))
        return error == 0, layout.unpack(arg.raw)

    def _extents(self, number: int, layout: struct.Struct, room: int, *values: int) -> Extents:
        while True:
            array = ctypes.create_string_buffer(EXTENT.size * room)
            fits, result = self._call(number, layout, *values, ctypes.addressof(array), room, 0)
            if fits:
                return list(EXTENT.iter_unpack(array.raw[: EXTENT.size * result[-2]]))
            room = result[-2]

    def info(self) -> Tuple[int, int]:
        """Version of the interface and page size."""
        result = self._call(0, INFO, 0, 0, 0)[1]
        return result[2], result[3]

    def map(self, address: str, user_va: int, length: int, last_addr: int = 0, room: int = 512) -> Extents:
        """Pin memory for a device; pairs of bus address and length."""
        return self._extents(1, MAP, room, 0, *parse_address(address), 0, user_va, length, last_addr)

    def query(self, user_va: int, length: int, room: int = 512) -> Extents:
        """The same again, for all or a part of what is mapped."""
        return self._extents(2, QUERY, room, 0, user_va, length)

    def unmap(self, user_va: int = 0, length: int = 2**64 - 1) -> int:
        """Undo mappings; how many bytes that were."""
        return self._call(3, UNMAP, 0, user_va, length)[1][-1]


def from_pagemap(user_va: int, length: int) -> Extents:
    """What /proc/self/pagemap says at this moment. Needs CAP_SYS_ADMIN."""
    page = mmap.PAGESIZE
    with open("/proc/self/pagemap", "rb", buffering=0) as stream:
        stream.seek(user_va // page * 8)
        entries = struct.unpack(f"={length // page}Q", stream.read(length // page * 8))
    extents: Extents = []
    for entry in entries:
        addr = (entry & (1 << 55) - 1) * page
        if extents and sum(extents[-1]) == addr:
            extents[-1] = extents[-1][0], extents[-1][1] + page
        else:
            extents.append((addr, page))
    return extents


def locked() -> int:
    """Bytes that count against RLIMIT_MEMLOCK."""
    with open("/proc/self/status", encoding="ascii") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmLck:"))


def parse_size(text: str) -> int:
    """Bytes of a number with an optional suffix."""
    found = re.fullmatch(r"([0-9]+)([KMG]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 64M")
    return int(found.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[found.group(2)]


def allocate(size: int, huge: int) -> mmap.mmap:
    """Anonymous private memory of normal or of huge pages."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if huge:
        flags |= MAP_HUGETLB | (huge.bit_length() - 1) << MAP_HUGE_SHIFT
    return mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def run(pinner: Pinner, address: str, memory: mmap.mmap, last_addr: int) -> dict[str, Any]:
    """Map, look, and leave it mapped."""
    user_va = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    version, page_size = pinner.info()
    report: dict[str, Any] = {"version": version, "page_size": page_size, "address": address, "length": len(memory)}
    before = locked()
    try:
        extents = pinner.map(address, user_va, len(memory), last_addr)
    except OSError as exc:
        report["error"] = errno.errorcode.get(exc.errno or 0, str(exc.errno))
        return report
    report["locked"] = locked() - before
    report["extents"] = [{"addr": addr, "length": length} for addr, length in extents]
    report["queried_same"] = pinner.query(user_va, len(memory)) == extents
    report["pagemap_same"] = from_pagemap(user_va, len(memory)) == extents
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="PCI address of a device that was added to the noiommu module")
    parser.add_argument("--size", type=parse_size, default=1 << 20, help="how much memory (default: 1M)")
    parser.add_argument("--huge", type=parse_size, default=0, help="use huge pages of this size")
    parser.add_argument(
        "--last-addr", type=lambda text: int(text, 0), default=0, help="last bus address the device knows"
    )
    parser.add_argument("--hold", action="store_true", help="keep the memory until standard input closes")
    args = parser.parse_args()
    try:
        parse_address(args.address)
    except ValueError as exc:
        parser.error(str(exc))
    try:
        memory = allocate(args.size, args.huge)
        with Pinner() as pinner:
            report = run(pinner, args.address, memory, args.last_addr)
            json.dump(report, sys.stdout)
            print(flush=True)
            if args.hold:
                sys.stdin.buffer.read()
    except OSError as exc:
        print(f"pin_client.py: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
