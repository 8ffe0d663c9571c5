# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parameters on the kernel command line of the next boot, by owner; the original line is recorded and restored."""

from __future__ import annotations

import os
import re
from typing import Any

from .._base.command import Runner
from .._base.errors import HostError
from .._base.files import FileSet, RenderedFile
from .._base.fs import Root
from .._base.paths import CMDLINE_RECORD as RECORD
from .._base.undo import UndoStack
from .mechanism import BootLoader, Lines, Original
from .record import CommandLineRecord
from .words import Parameters, add, effective, find, holds, remove, running


class CommandLinePlan:
    """What one run does for one owner. The constructor decides everything and touches nothing.

    ``wanted`` is the owner's whole declaration; None removes everything of the owner's.
    """

    def __init__(self, root: Root, runner: Runner, owner: str, wanted: Parameters | None) -> None:
        if not re.match(r"^[a-z][a-z0-9_-]{0,30}$", owner):
            raise HostError(
                "owner",
                "%r cannot name a set of parameters." % owner,
                evidence=["expected up to 31 lower-case letters, digits, - and _, a letter first"],
                remedy="Choose another name.",
            )
        self._root, self._owner = root, owner
        self.record = CommandLineRecord.load(root)
        self._old = self.record.owners.get(owner)
        self.wanted = wanted if wanted is not None and (wanted.parameters or wanted.without) else None
        self.loader: BootLoader | None = None
        self.lines_before: Lines = {}
        self.lines_after: Lines = {}
        self.warnings: list[str] = []
        self.changed = False
        self.files = FileSet(root, [])
        self.running = running(root)
        if self.wanted is None and self._old is None:
            return
        from .bootloaders import detect  # most runs have nothing to change here

        self.loader = detect(root, runner)
        self.lines_before = self.lines_after = self.loader.lines()
        if self.wanted is not None and self._old is None and self._holds(self.lines_before):
            return  # somebody else sees to it
        self._decide(self.loader)

    def _decide(self, loader: BootLoader) -> None:
        owners = {name: theirs for name, theirs in self.record.owners.items() if name != self._owner}
        if self.wanted is not None:
            owners[self._owner] = self.wanted
        self._editable = loader.editable()
        edited = {kernel: self._changed(loader, kernel, words, owners) for kernel, words in self._editable.items()}
        self.lines_after = loader.predicted(self.lines_before, edited)
        now = self.record.original or Original(self._editable, loader.source())
        restored = now if not owners and edited == now.lines else None
        wanted_files = loader.files(self._owner, self.wanted, edited, restored)
        folders = {os.path.dirname(file.path) for file in wanted_files}
        made = self.record.made if self.record.owners else [path for path in folders if not self._root.exists(path)]
        self._edited = edited
        self.new_record = CommandLineRecord(owners, now, made)
        self.files = FileSet(self._root, wanted_files)
        self.changed = (
            self.files.changed
            or self._old != self.wanted
            # A run was killed before the boot loader took it over.
            or (self.wanted is not None and not self._holds(self.lines_before))
        )
        if not self.changed:
            self.lines_after = self.lines_before
        locked = _read_only(self._root, loader.places) if self.changed else []
        if locked:
            raise HostError(
                "bootloader",
                "The kernel command line cannot be changed: %s is mounted read-only." % locked[0],
                evidence=["%s: read-only" % place for place in locked],
                remedy="Remount it read-write (mount -o remount,rw), then run again.",
            )

    def _changed(self, loader: BootLoader, kernel: str, words: list[str], owners: dict[str, Parameters]) -> list[str]:
        rewritten = loader.rewritten_owners(self._owner, self.record.owners)
        lines = self.record.original.lines if self.record.original is not None else {}
        # A kernel that came later took its line over from another one.
        original = lines.get(kernel) or next(iter(lines.values()), [])
        for name in reversed(rewritten):
            if name in self.record.owners:
                words = remove(words, self.record.owners[name], original)
        for name in rewritten:
            if name in owners:
                words = add(words, owners[name])
        return words

    def _holds(self, lines: Lines) -> bool:
        return self.wanted is not None and all(holds(words, self.wanted) for words in lines.values())

    @property
    def reboot_required(self) -> bool:
        """Whether the running kernel was booted without what the next one gets, as far as this owner goes."""
        declared = [parameters for parameters in (self._old, self.wanted) if parameters is not None]
        after = next(iter(self.lines_after.values()), [])
        return any(
            effective(self.running, phrase, parameters) != effective(after, phrase, parameters)
            for parameters in declared
            for phrase in parameters.parameters
        ) or any(
            (find(self.running, word) is None) != (find(after, word) is None)
            for parameters in declared
            for word in parameters.without
        )

    def apply(self) -> None:
        """Do it, or leave the host as it was and raise."""
        if self.loader is None or not self.changed:
            return
        # Recorded before it is done, and until it is undone: a killed run can be finished or rolled back.
        new = self.new_record
        both = {**self.record.owners, self._owner: _union(self._old, self.wanted)}
        recorded = FileSet(self._root, [RenderedFile(RECORD, CommandLineRecord(both, new.original, new.made).render())])
        undo = UndoStack()
        loader = self.loader
        try:
            recorded.apply()
            self.files.apply()
            undo.push("the boot loader's command line", lambda: self._restore(loader))
            loader.activate(self._edited)
            self._verify(loader)
            if not new.owners:
                for folder in new.made:
                    self._root.remove_empty_dir(folder)
            FileSet(self._root, [RenderedFile(RECORD, new.render())]).apply()
        except HostError as exc:
            problems = self.files.rollback() + undo.unwind()
            # If something is left, the next run needs the record of it.
            exc.evidence += problems or recorded.rollback()
            raise
        if not new.owners:
            self._root.remove_empty_dir(os.path.dirname(RECORD))

    def _verify(self, loader: BootLoader) -> None:
        lines = loader.lines()
        self.lines_after = lines
        if self.wanted is not None and not self._holds(lines):
            kernel, words = next(item for item in lines.items() if not holds(item[1], self.wanted))
            raise HostError(
                "bootloader",
                "%s ended without an error, but the next boot would not have the parameters." % loader.program,
                evidence=["%s: %s" % (kernel or "the next boot's command line", " ".join(words))],
                remedy="Look for %s." % loader.overrides,
            )

    def _restore(self, loader: BootLoader) -> None:
        """Have the boot loader use the old files again, unless what it boots was never replaced."""
        if loader.lines() != self.lines_before:
            loader.activate(self._editable)

    def before(self) -> str | None:
        """Return the line that the next boot would have had."""
        return _shown(self.lines_before)

    def after(self) -> str | None:
        """Return the line that the next boot has, or until :meth:`apply` has run would have."""
        return _shown(self.lines_after)

    def report(self) -> dict[str, Any]:
        """Return what module results show besides before and after."""
        return {
            "mechanism": self.loader.name if self.loader else None,
            "running": " ".join(self.running),
            "reboot_required": self.reboot_required,
            "files": self.files.changed_paths,
        }

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        header = "kernel command line of the next boot"
        texts = _text(self.lines_before), _text(self.lines_after)
        line = {"before_header": header, "after_header": header, "before": texts[0], "after": texts[1]}
        return ([line] if texts[0] != texts[1] else []) + self.files.diff()


def _union(old: Parameters | None, new: Parameters | None) -> Parameters:
    both = [parameters for parameters in (old, new) if parameters is not None]
    return Parameters(
        list(dict.fromkeys(phrase for parameters in both for phrase in parameters.parameters)),
        list(dict.fromkeys(word for parameters in both for word in parameters.without)),
    )


def _text(lines: Lines) -> str:
    return "".join("%s%s\n" % (kernel + ": " if kernel else "", " ".join(words)) for kernel, words in lines.items())


def _shown(lines: Lines) -> str | None:
    """Return the first line: that of the default kernel."""
    return next((" ".join(words) for words in lines.values()), None)


def _read_only(root: Root, places: list[str]) -> list[str]:
    """Return the places whose filesystem is mounted read-only."""
    found = []
    for place in places:
        try:
            if os.statvfs(root.path(place)).f_flag & os.ST_RDONLY:
                found.append(place)
        except OSError:
            continue  # not there: it is made, or explained where it is needed
    return found
