# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that DPDK left on hugetlbfs: they keep their pages although no process uses them any more.

A DPDK process holds a shared lock (flock) on each of its files and leaves them behind when it ends. The
next one with the same prefix removes those that it can lock exclusively (lib/eal/linux, clear_hugedir); so does this.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from typing import NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host.mounts import Mount

# The names that EAL gives: <file-prefix>map_<number>, "rtemap_0" by default.
_EAL_FILE = re.compile(r"map_\d+$")


class LeftOver(NamedTuple):
    """A file that an ended DPDK process left."""

    path: str
    page_size: int
    pages: int


def left_over(root: Root, mounts: list[Mount]) -> list[LeftOver]:
    """Return the files in the roots of these mounts that no process has locked."""
    found = []
    for mount in mounts:
        for name in root.listdir(mount.target) if mount.page_size else []:
            path = os.path.join(mount.target, name)
            size = _size_of_unlocked(root, path) if _EAL_FILE.search(name) else None
            if mount.page_size and size is not None:
                found.append(LeftOver(path, mount.page_size, size // mount.page_size))
    return found


def _size_of_unlocked(root: Root, path: str) -> int | None:
    """Return the size of a file that no process has locked; None if it is locked, unknown, or not a regular file."""
    try:
        # Users of the mount can create a FIFO there, and opening one blocks until somebody writes to it.
        handle = os.open(root.path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            return None
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return about.st_size
    except OSError:
        return None
    finally:
        os.close(handle)


def remove(root: Root, files: list[LeftOver]) -> None:
    """Remove left-over files, each only if it is still unlocked."""
    for file in files:
        if _size_of_unlocked(root, file.path) is None and root.exists(file.path):
            raise HostError(
                "pool_in_use",
                "%s was not in use a moment ago and now is." % file.path,
                evidence=["%s: locked" % file.path],
                remedy="Stop the DPDK process that has just started, then run again.",
            )
        root.remove_file(file.path)
