# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts of hugetlbfs: where, of which page size, for whom; live, and by mount units at every boot.

Units of our own and no lines in /etc/fstab: that file is the operator's, and a mistake in it can stop a boot.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Container

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.files import HEADER, FileSet, RenderedFile
from .._base.fs import Root
from .._base.paths import HUGETLB_MOUNTS_RECORD as RECORD
from .._base.paths import UNITS_DIR, WANTS_DIR
from .._base.records import dump_json, load_record
from .._base.schema import fields, items, table, text
from .._base.undo import UndoStack
from .._host import systemd
from .._host.hugetlb import Pools, format_size
from .._host.mounts import MOUNTS, shown_mounts
from .declared import WantedMount, bad_mount, parse_mounts, unit_name
from .leftovers import left_over, remove

_UNIT = """[Unit]
Description=Hugetlb pages of %(size)s for the data plane
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
ConditionPathExists=/sys/kernel/mm/hugepages/hugepages-%(kilobytes)dkB

[Mount]
What=hugetlbfs
Where=%(path)s
Type=hugetlbfs
Options=%(options)s

[Install]
WantedBy=multi-user.target
"""


class MountsPlan:
    """What one run does to the mounts. The constructor decides everything and touches nothing.

    The list is the whole state: a mount of ours that is no longer declared is unmounted.
    """

    def __init__(
        self, root: Root, runner: Runner, mounts: list[dict[str, Any]], groups_to_come: Container[str]
    ) -> None:
        self._root, self._runner = root, runner
        self.wanted = parse_mounts(root, Pools(root), mounts, groups_to_come)
        self._record = _read_record(root)
        self._mounted = shown_mounts(root)
        declared = {mount.path: mount for mount in self.wanted}
        self.to_mount = [mount for mount in self.wanted if not self._is_as_wanted(mount)]
        self.to_unmount = [
            path
            for path in self._record
            if path in self._mounted and (path not in declared or declared[path] in self.to_mount)
        ]
        self._dropped = [path for path in self._record if path not in declared]
        self._made = {path: self._record.get(path, _missing(root, path)) for path in declared}
        self.files = FileSet(root, self._files())
        self._record_file = FileSet(root, [RenderedFile(RECORD, _render(self._made) if self._made else None)])
        # Recorded before it is made, and until it is gone: a killed run can be finished or rolled back.
        self._recorded = FileSet(root, [RenderedFile(RECORD, _render({**self._record, **self._made}))])
        self._undo = UndoStack()
        self.left_over = left_over(root, [self._mounted[path] for path in self.to_unmount])
        refusals = [problem for mount in self.wanted for problem in self._obstacles(mount)] + self._refuse_in_use()
        if refusals:
            raise Refused(refusals)

    def _is_as_wanted(self, wanted: WantedMount) -> bool:
        now = self._mounted.get(wanted.path)
        if now is None or now.fstype != "hugetlbfs" or now.page_size != wanted.size or now.limit != wanted.limit:
            return False
        about = os.stat(self._root.path(wanted.path))
        return (about.st_mode & 0o7777, about.st_uid, about.st_gid) == (wanted.mode, wanted.uid, wanted.gid)

    def _files(self) -> list[RenderedFile]:
        files = []
        for wanted in self.wanted:
            text = HEADER + _UNIT % {
                "path": wanted.path,
                "size": format_size(wanted.size),
                "kilobytes": wanted.size >> 10,
                "options": wanted.options,
            }
            unit = "%s/%s" % (UNITS_DIR, wanted.unit)
            files += [RenderedFile(unit, text), RenderedFile("%s/%s" % (WANTS_DIR, wanted.unit), unit, link=True)]
        for path in self._dropped:
            files += [
                RenderedFile("%s/%s" % (WANTS_DIR, unit_name(path)), None, link=True),
                RenderedFile("%s/%s" % (UNITS_DIR, unit_name(path)), None),
            ]
        return files

    def _obstacles(self, wanted: WantedMount) -> list[HostError]:
        """Return why a mount cannot be made there."""
        path, now, content = wanted.path, self._mounted.get(wanted.path), self._root.listdir(wanted.path)
        if now is not None and path not in self._record:
            return [
                bad_mount(
                    "Something else is mounted at %s." % path,
                    ["%s: %s is %s" % (MOUNTS, path, now.fstype)],
                    "Choose another path, or unmount it and remove it from /etc/fstab or its unit.",
                )
            ]
        if now is None and content:
            return [
                bad_mount(
                    "The directory %s is not empty, and a mount would hide what is in it." % path,
                    ["%s: %s" % (path, ", ".join(content[:5]))],
                    "Choose another path, or move what is there.",
                )
            ]
        if now is None and self._root.exists(path) and not os.path.isdir(self._root.path(path)):
            return [bad_mount("%s is not a directory." % path, ["%s: a file" % path], "Choose another path.")]
        return []

    def _refuse_in_use(self) -> list[HostError]:
        refusals = []
        removable = {file.path for file in self.left_over}
        for path in self.to_unmount:
            files = [name for name in self._root.listdir(path) if os.path.join(path, name) not in removable]
            if files:
                refusals.append(
                    HostError(
                        "mount_in_use",
                        "The hugetlbfs mount %s has to be unmounted, but it holds files, and their pages." % path,
                        evidence=["%s: %s" % (path, ", ".join(files[:5]))],
                        remedy="Stop the application that uses them and remove them, then run again.",
                    )
                )
        return refusals

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        changed = self.files.changed or self._record_file.changed
        return bool(self.to_mount or self.to_unmount or self._dropped) or changed

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        after = {wanted.path: "hugetlbfs %s\n" % wanted.options for wanted in self.to_mount}
        mounts = [
            {
                "before_header": path,
                "after_header": path,
                "before": "%s %s\n" % (now.fstype, now.settings) if now else "not mounted\n",
                "after": after.get(path, "not mounted\n"),
            }
            for path in dict.fromkeys([*self.to_unmount, *after])
            for now in [self._mounted.get(path)]
        ]
        return mounts + self._record_file.diff() + self.files.diff()

    def apply(self) -> None:
        """Make the changes that :meth:`rollback` can undo, or leave the host as it was and raise."""
        try:
            if self._record or self._made:
                self._recorded.apply()
            remove(self._root, self.left_over)
            for path in self.to_unmount:
                now = self._mounted[path]
                self._run("umount", path)
                self._undo.push("the mount " + path, partial(self._mount, now.target, now.settings))
            for wanted in self.to_mount:
                self._make_directories(wanted.path)
                self._mount(wanted.path, wanted.options)
                self._undo.push("the new mount " + wanted.path, partial(self._run, "umount", wanted.path))
            self.files.apply()
        except HostError as exc:
            exc.evidence += self.rollback()
            raise

    def finish(self) -> None:
        """Make the changes that cannot be undone, after everything that can fail."""
        # systemd already knows each mount from the kernel, and would not look for its unit by itself.
        if self.files.changed and systemd.is_running(self._root):
            systemd.reload(self._runner)
        for path in self._dropped:
            for folder in reversed(self._record[path]):
                self._root.remove_empty_dir(folder)
        self._record_file.apply()
        if not self._made:
            self._root.remove_empty_dir(os.path.dirname(RECORD))

    def rollback(self) -> list[str]:
        """Undo what :meth:`apply` did; return what could not be undone."""
        problems = self.files.rollback() + self._undo.unwind()
        # If something is left, the next run needs the record of it.
        return problems or self._recorded.rollback()

    def _make_directories(self, path: str) -> None:
        for folder in _missing(self._root, path):
            try:
                self._root.make_dirs(folder)
            except OSError as exc:
                raise bad_mount(
                    "The mount point %s could not be made: %s." % (path, exc.strerror),
                    ["mkdir %s: %s" % (folder, exc.strerror)],
                    "Choose a path on a writable filesystem.",
                ) from exc
            self._undo.push("the directory " + folder, partial(self._root.remove_empty_dir, folder))

    def _mount(self, path: str, options: str) -> None:
        self._run("mount", "-t", "hugetlbfs", "-o", options, "hugetlbfs", path)

    def _run(self, *argv: str) -> None:
        done = self._runner.run(*argv)
        if done.rc != 0:
            said = (done.stderr.strip() or "no reason given").splitlines()[-1]
            busy = "Stop the processes that use it (fuser -vm %s), then run again." % argv[-1]
            raise bad_mount(
                "%s failed: %s" % (argv[0], said),
                ["`%s`: rc %d" % (" ".join(argv), done.rc)],
                busy if argv[0] == "umount" else "Look at the last lines of `dmesg` for the kernel's reason.",
            )

    def report(self) -> list[dict[str, Any]]:
        """Return the declared mounts."""
        return [wanted.describe() for wanted in self.wanted]


def _missing(root: Root, path: str) -> list[str]:
    parts = path.strip("/").split("/")
    folders = ["/" + "/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return [folder for folder in folders if not root.exists(folder)]


def _render(made: dict[str, list[str]]) -> str:
    return dump_json({"mounts": made})


_PATH = text("/.*", "an absolute path")
_SCHEMA = fields({"mounts": table(items(_PATH), "/.*")})


def _read_record(root: Root) -> dict[str, list[str]]:
    damage = "The record of the hugetlbfs mounts is damaged."
    remedy = "Unmount what is no longer wanted yourself, then remove %s." % RECORD
    return load_record(root, RECORD, _parse_record, damage, remedy, _SCHEMA) or {}


def _parse_record(stored: dict[str, Any]) -> dict[str, list[str]]:
    mounts: dict[str, list[str]] = stored["mounts"]
    return mounts
