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


def read_mounts(root: Root) -> list[Mount]:
    """Return all mounts, oldest first."""
    mounts = []
    for line in (root.read_text(MOUNTS) or "").splitlines():
        head, _dash, tail = line.partition(" - ")
        fields, about = head.split(), tail.split()
        if len(fields) >= 6 and about:
            target = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), fields[4])
            mounts.append(Mount(target, fields[5].split(","), about[0]))
    return mounts


def mount_of(root: Root, path: str) -> Mount | None:
    """Return the mount that a path is on."""
    best = None
    for one in read_mounts(root):
        inside = path == one.target or path.startswith(one.target.rstrip("/") + "/")
        # The last of several mounts at one place is the one that shows.
        if inside and (best is None or len(one.target) >= len(best.target)):
            best = one
    return best
