# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The device nodes of the data plane, and their group."""

from __future__ import annotations

from functools import partial
from typing import Iterable

from .._base.fs import Root
from .._base.paths import GRANTED_MODE, UDEV_RULES
from .._base.undo import UndoStack
from .._host.iommu import chardevs
from .._policy.granted_nodes import CONTAINER, CONTAINER_MODE, can_use_container, granted_nodes
from .files import PIN_NODE, gave_every_group
from .group import GroupPlan
from .node import Node, look, set_owner

KERNEL_MODE = 0o600


class NodesPlan:
    """The device nodes that exist now, and the group they are given to."""

    def __init__(self, root: Root, groups: GroupPlan, original: Node | None) -> None:
        """Compare the nodes with what is declared; ``original`` is VFIO's container as an earlier run found it."""
        self._root = root
        self._is_granted = groups.name is not None
        self._old_gid, self._original = groups.old_gid, original
        ours = {PIN_NODE, *granted_nodes(root)}
        self._nodes = self._look(sorted(ours))
        # A group that we created owns nothing else; and an earlier version gave the group every node.
        was_given = groups.was_ours or gave_every_group(root.read_text(UDEV_RULES))
        others = self._look(path for path in chardevs(root) if was_given and path not in ours)
        self._to_revoke = [node for node in others if node.gid in (groups.gid, groups.old_gid)]
        self._container = self._find_container(groups.gid)

    def _look(self, paths: Iterable[str]) -> list[Node]:
        return [node for node in (look(self._root, path) for path in paths) if node is not None]

    def _find_container(self, gid: int | None) -> Node | None:
        """Return VFIO's container if it is ours to change, or was."""
        now = look(self._root, CONTAINER)
        if now is None or self._original is not None:
            return now
        return now if self._is_granted and not can_use_container(now.mode, now.gid or 0, gid) else None

    @property
    def original_container(self) -> Node | None:
        """VFIO's container before it was granted, to be recorded."""
        return (self._original or self._container) if self._is_granted else None

    def found(self) -> list[Node]:
        """Return the nodes as they are."""
        return [*self._nodes, *self._to_revoke, *([self._container] if self._container else [])]

    def wanted(self, gid: int | None) -> list[Node]:
        """Return the same nodes as they must be for the group with this number.

        Without a grant, only nodes that our group was given are changed.
        """
        wanted = [self._wanted(node, gid) for node in self._nodes]
        wanted += [Node(node.path, 0, 0, KERNEL_MODE) for node in self._to_revoke]
        if self._container is not None:
            had = self._container
            wanted.append(had._replace(mode=CONTAINER_MODE) if self._is_granted else self._original or had)
        return wanted

    def _wanted(self, node: Node, gid: int | None) -> Node:
        if self._is_granted:
            return Node(node.path, 0, gid, GRANTED_MODE)
        return Node(node.path, 0, 0, KERNEL_MODE) if node.gid == self._old_gid else node

    def changes(self, gid: int | None) -> list[tuple[Node, Node]]:
        """Return what differs, each node as it is and as it must be."""
        return [(had, want) for had, want in zip(self.found(), self.wanted(gid)) if had != want]

    def apply(self, gid: int | None, undo: UndoStack) -> None:
        """Give the nodes to the group, or restore their owner."""
        for had, want in self.changes(gid):
            undo.push(had.path, partial(set_owner, self._root, had))
            set_owner(self._root, want)
