# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's mounts, as its first process sees them."""

from __future__ import annotations

import re
from typing import NamedTuple

from ._fs import Root

MOUNTS = "/proc/1/mountinfo"


class Mount(NamedTuple):
    """Where a filesystem is mounted, with which of the mount's own options, and its type."""

    target: str
    options: list[str]
    fstype: str
    source: str
    numbers: str  # major:minor
    part: str  # what of the filesystem is mounted: / is all of it


def read_mounts(root: Root, table: str = MOUNTS) -> list[Mount]:
    """Return all mounts, oldest first."""
    mounts = []
    for line in (root.read_text(table) or "").splitlines():
        head, _dash, tail = line.partition(" - ")
        fields, about = head.split(), tail.split()
        if len(fields) >= 6 and len(about) >= 2:
            target, source = unescape(fields[4]), unescape(about[1])
            mounts.append(Mount(target, fields[5].split(","), about[0], source, fields[2], unescape(fields[3])))
    return mounts


def unescape(text: str) -> str:
    """Return a field of mountinfo or fstab with its spaces and the like."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), text)


def mount_of(root: Root, path: str) -> Mount | None:
    """Return the mount that a path is on."""
    best = None
    for one in read_mounts(root):
        inside = path == one.target or path.startswith(one.target.rstrip("/") + "/")
        # The last of several mounts at one place is the one that shows.
        if inside and (best is None or len(one.target) >= len(best.target)):
            best = one
    return best
