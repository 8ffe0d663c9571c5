# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The owner, group and mode of a device node or of a mount's root."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root


class Node(NamedTuple):
    """A device node, or the root of a mount, and who may use it."""

    path: str
    uid: int
    gid: int | None  # None: of a group that is still to be created
    mode: int


def look(root: Root, path: str) -> Node | None:
    """Return who may use a node now, None if it is not there."""
    try:
        found = os.stat(root.path(path))
    except FileNotFoundError:
        return None
    return Node(path, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def show(nodes: list[Node]) -> dict[str, dict[str, Any]]:
    """Return nodes as they are reported."""
    return {node.path: {"uid": node.uid, "gid": node.gid, "mode": "%04o" % node.mode} for node in nodes}


def set_owner(root: Root, want: Node) -> None:
    """Give a node the owner, the group and the mode that it must have."""
    if want.gid is None:
        raise ValueError("the group of %s does not exist yet" % want.path)
    try:
        os.chown(root.path(want.path), want.uid, want.gid)
        os.chmod(root.path(want.path), want.mode)
    except FileNotFoundError:
        pass  # The device is gone; udev gives the next one to the group.
    except OSError as exc:
        raise HostError(
            "file",
            "Could not give %s to its group: %s." % (want.path, exc.strerror),
            evidence=["%s -> gid %d, mode %04o" % (want.path, want.gid, want.mode)],
            remedy="Run with become: true.",
        ) from exc
