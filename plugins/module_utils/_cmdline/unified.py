# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in a unified kernel image: a PE program whose sections are the kernel, its command line, its release."""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple

from .._base.fs import Root

_HEADERS = 1 << 13
_TEXT = 1 << 16  # of a section that is read
_SECURITY = 4  # the data directory that says where the signatures are


class Image(NamedTuple):
    """Which kernel it boots, with which line."""

    release: str
    line: str


def read(root: Root, path: str) -> Image | None:
    """Return what an image boots; None where the file is no such image, or does not say which kernel is in it."""
    found: dict[str, str] = {}
    # A later section of the same name belongs to another profile; the first one boots by default.
    for name, offset, size in _sections(root.read_at(path, 0, _HEADERS) or b""):
        if name in (".cmdline", ".uname") and name not in found:
            data = root.read_at(path, offset, min(size, _TEXT)) or b""
            found[name] = data.split(b"\0")[0].decode("utf-8", "surrogateescape").strip()
    return Image(found[".uname"], found.get(".cmdline", "")) if ".uname" in found else None


def is_signed(root: Root, path: str) -> bool:
    """Whether an image has a signature."""
    head = root.read_at(path, 0, _HEADERS) or b""
    try:
        start = _optional_header(head)
        (magic,) = struct.unpack_from("<H", head, start)
        # 32-bit images have shorter fields before the directories.
        _address, size = struct.unpack_from("<II", head, start + (112 if magic == 0x20B else 96) + 8 * _SECURITY)
    except (struct.error, ValueError):
        return False
    return bool(size)


def _optional_header(head: bytes) -> int:
    """Return where the COFF header ends, or raise ValueError or struct.error."""
    (start,) = struct.unpack_from("<I", head, 0x3C)
    if head[:2] != b"MZ" or head[start : start + 4] != b"PE\0\0":
        raise ValueError("not a PE program")
    return int(start) + 24


def _sections(head: bytes) -> Iterator[tuple[str, int, int]]:
    """Return each section's name, and where its content is in the file."""
    try:
        start = _optional_header(head)
        (count,) = struct.unpack_from("<H", head, start - 18)
        (optional,) = struct.unpack_from("<H", head, start - 4)
        for number in range(count):
            name, virtual, _address, raw, offset = struct.unpack_from("<8sIIII", head, start + optional + 40 * number)
            yield name.rstrip(b"\0").decode("ascii", "replace"), offset, min(virtual, raw)
    except (struct.error, ValueError):
        return
