# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A PCI function's base address registers (BARs), what is in them, and which are mapped write-combined."""

from __future__ import annotations

import re
import struct
from typing import Iterator, NamedTuple

from .._base.fs import Root
from .._base.paths import WRITE_COMBINING
from .pci import PciDevice

BARS = range(6)
# From linux/ioport.h.
_MEMORY, _PREFETCH, _MEMORY_64, _UNSET = 0x200, 0x2000, 0x100000, 0x20000000
# Of the configuration space: where the status word and the list of capabilities are, and two kinds of these.
_STATUS, _HAS_LIST, _FIRST = 0x06, 0x10, 0x34
_MSIX, _VENDOR = 0x11, 0x09
_LONGEST_LIST = 48
_VIRTIO, _VIRTIO_SHARED_MEMORY = "1af4", 8
_VIRTIO_DEVICES = range(0x1000, 0x1080)

_MEMTYPES = "/sys/kernel/debug/x86/pat_memtype_list"
_MEMTYPE = re.compile(r"^PAT: \[mem (0x[0-9a-f]+)-(0x[0-9a-f]+)\] (\S+)$", re.MULTILINE)
_COMBINED = "write-combining"


class Bar(NamedTuple):
    """One BAR that exists."""

    number: int
    start: int
    size: int
    is_memory: bool
    is_prefetchable: bool
    is_unset: bool  # it has no address
    is_wide: bool  # of 64 bits, so that it takes the place of the next one, too

    def __str__(self) -> str:
        kind = "memory%s" % (", prefetchable" if self.is_prefetchable else ", not prefetchable")
        return "BAR %d: %d bytes, %s" % (self.number, self.size, kind if self.is_memory else "I/O")


class Special(NamedTuple):
    """Which BARs hold structures that the configuration space points to."""

    msix: frozenset[int]  # the table of MSI-X, or its pending bits
    virtio: frozenset[int]  # registers of virtio


class Naming(NamedTuple):
    """What the noiommu module was told of a device's BARs."""

    named: tuple[int, ...]
    combined: tuple[int, ...]  # those of them that are write-combined now


def read_bars(root: Root, device: PciDevice) -> dict[int, Bar]:
    """Return the BARs that exist, by number."""
    found = {}
    lines = (root.read_text(device.path, "resource") or "").splitlines()
    for number, line in zip(BARS, lines):
        start, end, flags = (int(word, 16) for word in line.split())
        if flags:
            found[number] = Bar(
                number,
                start,
                end - start + 1,
                bool(flags & _MEMORY),
                bool(flags & _PREFETCH),
                bool(flags & _UNSET) or end <= start,
                bool(flags & _MEMORY_64),
            )
    return found


def read_special(root: Root, device: PciDevice) -> Special | None:
    """Return which BARs hold special structures; None if the configuration space does not say."""
    path = device.path + "/config"
    msix: set[int] = set()
    virtio: set[int] = set()
    is_virtio = device.vendor == _VIRTIO and int(device.device or "0", 16) in _VIRTIO_DEVICES
    try:
        for kind, offset in _capabilities(root, path):
            if kind == _MSIX:
                msix.update(pointer & 7 for pointer in struct.unpack("<II", _read(root, path, offset + 4, 8)))
            elif kind == _VENDOR and is_virtio:
                structure, window = _read(root, path, offset + 3, 2)
                if structure != _VIRTIO_SHARED_MEMORY:
                    virtio.add(window)
    except EOFError:
        return None
    return Special(frozenset(msix), frozenset(virtio))


def _capabilities(root: Root, path: str) -> Iterator[tuple[int, int]]:
    """Yield each capability's kind and where it is."""
    (status,) = struct.unpack("<H", _read(root, path, _STATUS, 2))
    if status == 0xFFFF:  # the device does not answer
        raise EOFError
    offset = _read(root, path, _FIRST, 1)[0] & ~3 if status & _HAS_LIST else 0
    for _capability in range(_LONGEST_LIST):
        if not offset:
            return
        kind, following = _read(root, path, offset, 2)
        yield kind, offset
        offset = following & ~3


def _read(root: Root, path: str, offset: int, size: int) -> bytes:
    data = root.read_at(path, offset, size) or b""
    if len(data) < size:
        raise EOFError
    return data


def read_naming(root: Root, address: str) -> Naming:
    """Return what the module says of one device; nothing where it is not loaded."""
    named, combined = [], []
    for line in (root.read_text(WRITE_COMBINING) or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == address and words[1].isdigit():
            named.append(int(words[1]))
            if words[2] == "on":
                combined.append(int(words[1]))
    return Naming(tuple(sorted(named)), tuple(sorted(combined)))


def other_types(root: Root, window: Bar) -> list[str]:
    """Return how the kernel's own list of memory types contradicts that a BAR is write-combined.

    There is one on x86 where debugfs is mounted; without it, nothing contradicts.
    """
    text = root.read_text(_MEMTYPES)
    if text is None:
        return []
    ends = ((int(start, 16), int(end, 16), kind) for start, end, kind in _MEMTYPE.findall(text))
    kinds = {kind for start, end, kind in ends if start < window.start + window.size and end > window.start}
    return sorted(kinds - {_COMBINED}) if kinds else ["no type at all"]
