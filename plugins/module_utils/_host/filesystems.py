# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether files can be written at a place, as its filesystem says: nothing is written to find out."""

from __future__ import annotations

import os
from typing import NamedTuple

from .._base.fs import Root
from .mounts import MOUNTS, mount_of


class Room(NamedTuple):
    """What is left on a filesystem for everybody but root's reserve."""

    device: int
    size: int
    files: int | None  # None: as many as fit


def existing(root: Root, path: str) -> str:
    """Return the nearest directory above a path that is there."""
    while path != "/" and not root.exists(path):
        path = os.path.dirname(path)
    return path


def read_only(root: Root, path: str) -> str | None:
    """Say what makes a place read-only; None if nothing does."""
    mount = mount_of(root, root.realpath(existing(root, path)))
    if mount is None or "ro" not in (*mount.options, *mount.settings.split(",")):
        return None
    return "%s: %s (%s) is mounted read-only on %s" % (MOUNTS, mount.source, mount.fstype, mount.target)


def room(root: Root, path: str) -> Room:
    """Return what is left at a place."""
    real = root.path(existing(root, path))
    stats = os.statvfs(real)
    return Room(os.stat(real).st_dev, stats.f_bavail * stats.f_frsize, stats.f_favail if stats.f_files else None)
