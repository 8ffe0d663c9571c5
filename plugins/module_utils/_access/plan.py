# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may use the data plane's devices: a group, its members, services and programs, each with what it needs."""

from __future__ import annotations

import os
from typing import Any

from .._base.command import Runner, RunResult
from .._base.errors import HostError, Refused
from .._base.files import FileSet, RenderedFile
from .._base.fs import Root
from .._base.paths import (
    ACCESS_RECORD,
    HUGETLBFS_UNIT,
    LIMITS,
    UDEV_RULES,
    UNITS_DIR,
    drop_in_path,
)
from .._base.undo import UndoStack
from .._host import systemd
from . import files, grants, node, record
from .declared import Request
from .group import GroupPlan
from .hugetlbfs import HugetlbfsPlan
from .nodes import NodesPlan
from .programs import ProgramsPlan
from .services import ServicesPlan

_PARTS = (("/etc/group", "groups"), ("device nodes", "nodes"), ("programs", "binaries"))


def refusals(root: Root, runner: Runner, request: Request, backend: str | None) -> list[HostError]:
    """Return everything that would refuse these grants on a host that this backend is going to serve."""
    stored = record.read(root)
    group = GroupPlan(root, runner, request, stored)
    services = ServicesPlan(root, request, backend)
    programs = ProgramsPlan(root, request, backend, stored.binaries if stored else {}, group.old_gid)
    return [*group.refusals(), *services.refusals, *programs.refusals]


class AccessPlan:
    """What one run changes. The constructor decides from the host alone, so that check mode predicts the real run."""

    def __init__(self, root: Root, runner: Runner, request: Request) -> None:
        self._root = root
        self._runner = runner
        self._request = request
        self._record = record.read(root)
        self._group = GroupPlan(root, runner, request, self._record)
        refusals = self._group.refusals()
        self._backend, more = self._choose_backend()
        old_gid, gid = self._group.old_gid, self._group.gid
        recorded = self._record.binaries if self._record else {}
        self._services = ServicesPlan(root, request, self._backend)
        self._programs = ProgramsPlan(root, request, self._backend, recorded, old_gid)
        refusals += [*more, *self._services.refusals, *self._programs.refusals]
        if refusals:
            raise Refused(refusals)
        is_granted = request.group is not None
        container, mount = (self._record.container, self._record.hugetlbfs) if self._record else (None, None)
        self._nodes = NodesPlan(root, self._group, container)
        self._mount = HugetlbfsPlan(root, is_granted and request.hugetlbfs, mount, old_gid, gid)
        self._record_file = FileSet(root, [record.rendered(self._new_record())])
        self._files = FileSet(root, self._rendered_files(gid))
        self._before = self._state(self._group.before(), self._nodes.found(), self._mount.now, self._programs.before())
        self.warnings = [*self._group.warnings, *self._programs.warnings, *self._mount.warnings]

    def _choose_backend(self) -> tuple[str | None, list[HostError]]:
        """Return the backend that serves the host; None where nothing is declared that depends on it."""
        request = self._request
        if request.group is None or not (request.services or request.binaries):
            return None, []
        from .._policy.backend import choose  # users alone depend on none

        choice = choose(self._root, request.backend, request.accept_unsafe)
        return choice.backend, [] if choice.backend else choice.refusals

    def _new_record(self) -> record.Record | None:
        if self._request.group is None:
            return None
        return record.Record(
            self._request.group,
            self._group.is_ours(),
            self._group.users_added(),
            self._programs.records(),
            self._mount.original,
            self._services.names(),
            self._nodes.original_container,
        )

    def _rendered_files(self, gid: int | None) -> list[RenderedFile]:
        group, memlock = self._request.group, self._request.memlock
        return [
            RenderedFile(UDEV_RULES, files.udev_rules(group) if group else None),
            RenderedFile(LIMITS, files.limits(group, memlock) if group else None),
            self._mount.rendered(gid),
            *self._services.rendered(),
        ]

    # --- the result ---

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        gid = self._group.gid
        return bool(
            self._group.changed
            or self._record_file.changed
            or self._files.changed
            or self._nodes.changes(gid)
            or self._mount.has_changed(gid)
            or self._programs.has_changed(gid)
        )

    @property
    def changed_paths(self) -> list[str]:
        """The files that are written or removed."""
        return self._record_file.changed_paths + self._files.changed_paths

    def before(self) -> dict[str, Any]:
        """Return groups, nodes and programs as they were found."""
        return self._before

    def after(self) -> dict[str, Any]:
        """Return groups, nodes and programs as they become."""
        gid = self._group.gid
        wanted = self._nodes.wanted(gid)
        return self._state(self._group.after(), wanted, self._mount.wanted(gid), self._programs.after(gid))

    @staticmethod
    def _state(
        groups: dict[str, Any], devices: list[node.Node], mount: node.Node | None, binaries: dict[str, Any]
    ) -> dict[str, Any]:
        return {"groups": groups, "nodes": node.show([*devices, *([mount] if mount else [])]), "binaries": binaries}

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        before, after = self._before, self.after()
        parts = [
            {"before_header": header, "after_header": header, "before": _text(before[key]), "after": _text(after[key])}
            for header, key in _PARTS
            if before[key] != after[key]
        ]
        return parts + self._record_file.diff() + self._files.diff()

    def grants(self) -> list[dict[str, str]]:
        """Return who gets what, and why."""
        found = grants.grants(self._request, self._group.users, self._mount, self._services, self._programs)
        return [grant._asdict() for grant in found]

    def to_restart(self) -> list[dict[str, Any]]:
        """Return the running services that need a restart to pick up their grants."""
        return self._services.to_restart(self._group.gid)

    # --- changing the host ---

    def apply(self) -> None:
        """Grant or revoke, or leave everything as it was.

        A grant is recorded before it is made, and removed from the record after it is revoked, so that a later run can
        revoke what a killed run granted.
        """
        undo, new = UndoStack(), self._new_record()
        recorded = FileSet(self._root, [record.rendered(record.union(self._record, new))] if new else [])
        try:
            recorded.apply()
            if new is not None:
                self._grant(new, undo)
            else:
                self._revoke(undo)
        except HostError as exc:
            problems = undo.unwind()
            # What is left must stay on record, or the next run would not know that it is ours.
            exc.evidence += problems or recorded.rollback()
            raise

    def _grant(self, new: record.Record, undo: UndoStack) -> None:
        self._group.join(undo)
        gid = self._group.gid
        self._write(FileSet(self._root, self._rendered_files(gid)), undo)
        # Only once the group exists: udev looks it up when it reads the rule, and ignores an unknown one.
        self._reload()
        self._nodes.apply(gid, undo)
        self._mount.apply(gid, undo)
        self._programs.apply(gid, undo)
        self._group.leave(undo)
        self._remove_empty_directories()
        self._write(FileSet(self._root, [record.rendered(new)]), undo)

    def _revoke(self, undo: UndoStack) -> None:
        gid = self._group.gid
        self._programs.apply(gid, undo)
        self._nodes.apply(gid, undo)
        self._mount.apply(gid, undo)
        self._write(self._files, undo)
        self._reload()
        self._group.leave(undo)
        self._remove_empty_directories()
        self._write(self._record_file, undo)
        self._root.remove_empty_dir(os.path.dirname(ACCESS_RECORD))

    def _write(self, files: FileSet, undo: UndoStack) -> None:
        files.apply()
        undo.push("files", files.rollback)

    def _remove_empty_directories(self) -> None:
        """Remove directories of drop-ins that became empty, in this run or in one that was killed."""
        paths = [path for path in self._files.changed_paths if path.startswith(UNITS_DIR)]
        if self._record is not None:
            paths += map(drop_in_path, self._record.services + ([HUGETLBFS_UNIT] if self._record.hugetlbfs else []))
        for path in paths:
            self._root.remove_empty_dir(os.path.dirname(path))

    def _reload(self) -> None:
        """Make udev and systemd read what was written. A failure is not an error: both read it at the next boot."""
        if UDEV_RULES in self._files.changed_paths:
            self._warn("udev did not reload its rules", self._runner.run("udevadm", "control", "--reload"))
        if any(path.startswith(UNITS_DIR) for path in self._files.changed_paths):
            self._warn("systemd did not reload its units", systemd.reload(self._runner))

    def _warn(self, failure: str, done: RunResult) -> None:
        if done.rc != 0:
            self.warnings.append("%s: %s" % (failure, done.stderr.strip() or "rc %d" % done.rc))


def _text(entries: dict[str, dict[str, Any]]) -> str:
    return "".join("%s: %s\n" % (name, _describe(entry)) for name, entry in entries.items())


def _describe(entry: dict[str, Any]) -> str:
    return ", ".join("%s=%s" % (key, value) for key, value in entry.items())
