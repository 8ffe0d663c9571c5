# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that DPDK left on hugetlbfs: they keep their pages although no process has them any more.

A DPDK process holds a shared lock (flock) on each of its files and leaves them behind when it ends. The next one with
the same prefix takes those that it can lock exclusively for garbage and removes them (lib/eal/linux, clear_hugedir);
so does this.
"""

from __future__ import annotations

import fcntl
import os
import re
from typing import NamedTuple

from ._errors import HostError
from ._fs import Root

# The names that EAL gives: <file-prefix>map_<number>, "rtemap_0" by default.
_EAL_FILE = re.compile(r"map_\d+$")
_PAGE_SIZE = re.compile(r"(?:^|,)pagesize=(\d+)([KMG])(?:,|$)")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class LeftOver(NamedTuple):
    """A file of an ended DPDK process."""

    path: str
    page_size: int
    pages: int


def left_over(root: Root) -> list[LeftOver]:
    """Return the files in the roots of the hugetlbfs mounts that no process has locked."""
    found = []
    for mount, page_size in _mounts(root):
        for name in root.listdir(mount):
            path = os.path.join(mount, name)
            if _EAL_FILE.search(name) and not _is_locked(root, path):
                found.append(LeftOver(path, page_size, os.stat(root.path(path)).st_size // page_size))
    return found


def _mounts(root: Root) -> list[tuple[str, int]]:
    mounts = []
    for line in (root.read_text("/proc/1/mountinfo") or "").splitlines():
        head, _dash, tail = line.partition(" - ")
        fields, about = head.split(), tail.split()
        if len(fields) >= 5 and len(about) >= 3 and about[0] == "hugetlbfs":
            size = _PAGE_SIZE.search(about[2])
            if size:
                mounts.append((fields[4], int(size.group(1)) * _UNITS[size.group(2)]))
    return mounts


def _is_locked(root: Root, path: str) -> bool:
    """Whether a process has the file; one that cannot be looked at counts as had."""
    try:
        handle = os.open(root.path(path), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def remove(root: Root, files: list[LeftOver]) -> None:
    """Remove left-over files, each only if still nobody has it."""
    for one in files:
        if _is_locked(root, one.path):
            raise HostError(
                "pool_in_use",
                "%s was in nobody's use a moment ago and now is." % one.path,
                evidence=["%s: locked" % one.path],
                remedy="Stop the DPDK process that has just started, then run again.",
            )
        root.remove_file(one.path)
