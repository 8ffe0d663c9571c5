# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The device nodes of the data plane, and who may open them."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import GRANTED_MODE
from .._base.undo import UndoStack
from .._host.iommu import chardevs
from .files import PIN_NODE

KERNEL_MODE = 0o600


class Node(NamedTuple):
    """A device node, or the root of a mount, and who may use it."""

    path: str
    uid: int
    gid: int | None  # None: of a group that is still to be created
    mode: int


def look(root: Root, path: str) -> Node:
    """Return who may use a node now."""
    found = os.stat(root.path(path))
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


class NodesPlan:
    """The device nodes that exist now, and whom they are given to."""

    def __init__(self, root: Root, granted: bool, old_gid: int | None) -> None:
        self._root = root
        self._granted = granted
        self._old_gid = old_gid
        self.nodes = [look(root, path) for path in [PIN_NODE, *chardevs(root)] if root.exists(path)]

    def wanted(self, gid: int | None) -> list[Node]:
        """Return the nodes as udev's rule makes them for the group with this number.

        Without a grant, only nodes that our group was given are changed.
        """
        if self._granted:
            return [Node(node.path, 0, gid, GRANTED_MODE) for node in self.nodes]
        return [Node(node.path, 0, 0, KERNEL_MODE) if node.gid == self._old_gid else node for node in self.nodes]

    def changes(self, gid: int | None) -> list[tuple[Node, Node]]:
        """Return what differs, each node as it is and as it must be."""
        return [(had, want) for had, want in zip(self.nodes, self.wanted(gid)) if had != want]

    def apply(self, gid: int | None, undo: UndoStack) -> None:
        """Give the nodes to the group, or take them from it."""
        for had, want in self.changes(gid):
            undo.push(had.path, lambda had=had: set_owner(self._root, had))  # type: ignore[misc]
            set_owner(self._root, want)
