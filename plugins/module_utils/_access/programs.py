# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs that members of the group start, and the capabilities of their files."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.undo import UndoStack
from .._host import capabilities
from . import eligibility, file_capabilities, profiles
from .declared import Request, program_path
from .file_capabilities import Found, Recorded, State
from .profiles import Application


class _Program(NamedTuple):
    """A program's file, its record, and what it is granted (None: the grant is revoked)."""

    found: Found
    record: Recorded
    bits: int | None


class ProgramsPlan:
    """Which programs get capabilities, and which lose those that an earlier run gave them."""

    def __init__(
        self, root: Root, request: Request, backend: str | None, recorded: dict[str, Recorded], old_gid: int | None
    ) -> None:
        self._root = root
        self._old_gid = old_gid
        self.refusals: list[HostError] = []
        self.warnings: list[str] = []
        self.applications: list[Application] = []
        self._programs: dict[str, _Program] = {}
        if backend is not None:
            self._read_declared(request, backend)
        for application in self.applications:
            if application.grants:
                self._plan_grant(application, recorded.get(application.name))
        if not self.refusals:
            for path, record in recorded.items():
                if path not in self._programs:
                    self._plan_revocation(path, record)

    def _read_declared(self, request: Request, backend: str) -> None:
        found: dict[str, Application] = {}
        for declared in request.binaries:
            try:
                # The capabilities are on the file that a link leads to.
                name = self._root.realpath(program_path(declared["path"]))
                application = profiles.application(name, declared, profiles.BINARY, backend, request)
            except HostError as exc:
                self.refusals.append(exc)
                continue
            # The same file may be declared by another name.
            found[name] = found[name].with_grants_of(application) if name in found else application
        self.applications = list(found.values())

    def _plan_grant(self, application: Application, record: Recorded | None) -> None:
        found = file_capabilities.look(self._root, application.name)
        refusals = eligibility.refusals(self._root, application, found)
        self.refusals += refusals
        if refusals or found is None:
            return
        # After an upgrade it is a different file.
        if record is None or record.inode != found.inode:
            record = Recorded(found.inode, found.state, 0, "")
        bits = capabilities.mask([grant.capability for grant in application.grants])
        self._programs[application.name] = _Program(found, record, bits)

    def _plan_revocation(self, path: str, record: Recorded) -> None:
        found = file_capabilities.look(self._root, path)
        if found is None:
            return
        self._programs[path] = _Program(found, record, None)
        back, note = file_capabilities.revoked(found.state, record, self._old_gid)
        if note:
            state = file_capabilities.show(back, path)
            text = ", ".join("%s=%s" % (key, value) for key, value in state.items())
            self.warnings.append("%s %s (%s)." % (path, note, text))

    def _wanted(self, path: str, gid: int | None) -> State:
        program = self._programs[path]
        if program.bits is None:
            return file_capabilities.revoked(program.found.state, program.record, self._old_gid)[0]
        return file_capabilities.granted(program.record.before, gid, program.bits, path)

    def records(self) -> dict[str, Recorded]:
        """Return what is recorded of each program with a grant."""
        found = {}
        for path, program in self._programs.items():
            if program.bits is not None:
                want = self._wanted(path, None)
                found[path] = program.record._replace(mode=want.mode, capabilities=want.capabilities or "")
        return found

    def has_changed(self, gid: int | None) -> bool:
        """Whether any program's file differs."""
        return any(program.found.state != self._wanted(path, gid) for path, program in self._programs.items())

    def before(self) -> dict[str, Any]:
        """Return the programs' files as they were found."""
        return {path: file_capabilities.show(program.found.state, path) for path, program in self._programs.items()}

    def after(self, gid: int | None) -> dict[str, Any]:
        """Return the same files as they become."""
        return {path: file_capabilities.show(self._wanted(path, gid), path) for path in self._programs}

    def apply(self, gid: int | None, undo: UndoStack) -> None:
        """Grant and revoke capabilities."""
        for path, program in self._programs.items():
            want = self._wanted(path, gid)
            if program.found.state != want:
                undo.push(path, partial(self._restore, path, program.found))
                file_capabilities.apply(self._root, path, program.found, want)

    def _restore(self, path: str, was: Found) -> None:
        found = file_capabilities.look(self._root, path)
        if found is not None and found.inode == was.inode:
            file_capabilities.apply(self._root, path, found, was.state)
