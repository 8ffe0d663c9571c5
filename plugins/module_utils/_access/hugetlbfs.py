# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mount of /dev/hugepages, which belongs to the group now and at every boot."""

from __future__ import annotations

from .._base.files import RenderedFile
from .._base.fs import Root
from .._base.paths import HUGETLBFS_UNIT, drop_in_path
from .._base.undo import UndoStack
from .._host.mounts import read_mounts
from .._host.units import read_unit
from .files import HEADER
from .node import Node, look, set_owner

HUGETLBFS = "/dev/hugepages"
MODE = 0o1770


class HugetlbfsPlan:
    """The root of /dev/hugepages as it is and as it must be.

    A mount that somebody else gave to a group stays as it is: noiommu_hugepage_mounts, for example, declares group and
    mode of its mounts itself.
    """

    def __init__(
        self, root: Root, is_wanted: bool, original: Node | None, old_gid: int | None, gid: int | None
    ) -> None:
        """Compare the mount with what is declared.

        ``original``: what an earlier run found before it gave the mount to the group with the number ``old_gid``.
        """
        self._root = root
        self._original = original
        self._is_wanted = is_wanted
        self._old_gid = old_gid
        self.warnings: list[str] = []
        self.now = look(root, HUGETLBFS) if _is_mounted(root) else None
        self.is_granted = is_wanted and self.now is not None and self._may_grant(self.now, gid)

    def _may_grant(self, now: Node, gid: int | None) -> bool:
        if (now.uid, now.gid) == (0, 0) or (self._original is not None and now.gid in (self._old_gid, gid)):
            return True
        if now.gid != gid:
            self.warnings.append(
                "%s is left as it is: it belongs to uid %d and gid %s already." % (now.path, now.uid, now.gid)
            )
        return False

    @property
    def original(self) -> Node | None:
        """The mount before it was granted, to be recorded."""
        return (self._original or self.now) if self.is_granted else None

    def wanted(self, gid: int | None) -> Node | None:
        """Return the mount as it must be for the group with this number."""
        if self.is_granted:
            return Node(HUGETLBFS, 0, gid, MODE)
        is_ours = self._original is not None and self.now is not None and self.now.gid == self._old_gid
        return self._original if is_ours and not self._is_wanted else self.now

    def has_changed(self, gid: int | None) -> bool:
        """Whether the mount differs from what it must be."""
        return self.now != self.wanted(gid)

    def apply(self, gid: int | None, undo: UndoStack) -> None:
        """Give the mount to the group, or restore it."""
        had, want = self.now, self.wanted(gid)
        if had is not None and want is not None and had != want:
            undo.push(had.path, lambda: set_owner(self._root, had))
            set_owner(self._root, want)

    def rendered(self, gid: int | None) -> RenderedFile:
        """Return the drop-in with which systemd mounts it for the group at boot."""
        return RenderedFile(drop_in_path(HUGETLBFS_UNIT), self._drop_in(gid) if self.is_granted else None)

    def _drop_in(self, gid: int | None) -> str:
        unit = read_unit(self._root, HUGETLBFS_UNIT)
        had = unit.last("Mount", "Options") if unit else ""
        options = [option for option in had.split(",") if option and option.split("=")[0] not in ("gid", "mode")]
        # The kernel accepts a number only.
        number = "(chosen when the group is created)" if gid is None else str(gid)
        options += ["mode=%04o" % MODE, "gid=" + number]
        return HEADER + "[Mount]\nOptions=%s\n" % ",".join(options)


def _is_mounted(root: Root) -> bool:
    return any((mount.target, mount.fstype) == (HUGETLBFS, "hugetlbfs") for mount in read_mounts(root))
