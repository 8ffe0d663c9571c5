# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parameters on the kernel command line of the next boot, by owner; what was there before is kept and comes back."""

from __future__ import annotations

import os
import re
from typing import Any

from .._base.command import Runner
from .._base.errors import HostError
from .._base.files import FileSet, RenderedFile
from .._base.fs import Root
from .._base.records import dump_json, load_record
from .bootloaders import BootLoader, Lines, Original, detect, read_only
from .words import Parameters, effective, find, holds, put, running, split, take_back

RECORD = "/var/lib/noiommu/cmdline.json"


class Record:
    """What was there before the first parameter of ours, and who owns which now."""

    def __init__(self, owners: dict[str, Parameters], original: Original | None, made: list[str]) -> None:
        self.owners, self.original, self.made = owners, original, made

    @classmethod
    def load(cls, root: Root) -> Record:
        """Read the file; nothing recorded if there is none."""
        damage = "The record of the original kernel command line is damaged."
        remedy = "Look at the boot loader's settings yourself, then remove %s." % RECORD
        return load_record(root, RECORD, cls._parse, damage, remedy) or cls({}, None, [])

    @classmethod
    def _parse(cls, stored: dict[str, Any]) -> Record:
        owners = {name: Parameters(one["parameters"], one["without"]) for name, one in stored["owners"].items()}
        lines = {kernel: split(line) for kernel, line in stored["lines"]}
        return cls(owners, Original(lines, stored["source"]), list(stored["made"]))

    def render(self) -> str | None:
        """Return the file's text, None if nothing is ours."""
        if not self.owners or self.original is None:
            return None
        return dump_json(
            {
                "owners": {name: one._asdict() for name, one in self.owners.items()},
                # A list: the default kernel comes first.
                "lines": [[kernel, " ".join(words)] for kernel, words in self.original.lines.items()],
                "source": self.original.source,
                "made": self.made,
            }
        )


class CommandLine:
    """What one run shall do for one owner. The constructor decides everything and touches nothing.

    ``wanted`` is the owner's whole declaration; None takes everything of the owner's back.
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
        self.record = Record.load(root)
        self._old = self.record.owners.get(owner)
        self.wanted = wanted if wanted is not None and (wanted.parameters or wanted.without) else None
        self.loader: BootLoader | None = None
        self.before: Lines = {}
        self.after: Lines = {}
        self.changed = False
        self.files = FileSet(root, [])
        self.running = running(root)
        if self.wanted is None and self._old is None:
            return
        self.loader = detect(root, runner)
        self.before = self.after = self.loader.lines()
        if self.wanted is not None and self._old is None and self._holds(self.before):
            return  # somebody else sees to it
        self._decide(self.loader)

    def _decide(self, loader: BootLoader) -> None:
        owners = {name: one for name, one in self.record.owners.items() if name != self._owner}
        if self.wanted is not None:
            owners[self._owner] = self.wanted
        self.after, edited = (
            {kernel: self._changed(loader, kernel, words, owners) for kernel, words in lines.items()}
            for lines in (self.before, loader.editable())
        )
        now = self.record.original or Original(loader.editable(), loader.source())
        restored = now if not owners and edited == now.lines else None
        wanted_files = loader.files(self._owner, self.wanted, edited, restored)
        folders = {os.path.dirname(one.path) for one in wanted_files}
        made = self.record.made if self.record.owners else [one for one in folders if not self._root.exists(one)]
        self._edited = edited
        self.new_record = Record(owners, now, made)
        self.files = FileSet(self._root, wanted_files)
        self.changed = (
            self.files.changed
            or self._old != self.wanted
            # A run that was killed before the boot loader took it over.
            or (self.wanted is not None and not self._holds(self.before))
        )
        if not self.changed:
            self.after = self.before
        locked = read_only(self._root, loader.places) if self.changed else []
        if locked:
            raise HostError(
                "bootloader",
                "The kernel command line cannot be changed: %s is mounted read-only." % locked[0],
                evidence=["%s: read-only" % place for place in locked],
                remedy="Remount it read-write (mount -o remount,rw), then run again.",
            )

    def _changed(self, loader: BootLoader, kernel: str, words: list[str], owners: dict[str, Parameters]) -> list[str]:
        anew = loader.put_anew(self._owner, self.record.owners)
        lines = self.record.original.lines if self.record.original is not None else {}
        # A kernel that came later took its line over from another one.
        original = lines.get(kernel) or next(iter(lines.values()), [])
        for name in reversed(anew):
            if name in self.record.owners:
                words = take_back(words, self.record.owners[name], original)
        for name in anew:
            if name in owners:
                words = put(words, owners[name])
        return words

    def _holds(self, lines: Lines) -> bool:
        return self.wanted is not None and all(holds(words, self.wanted) for words in lines.values())

    @property
    def reboot_required(self) -> bool:
        """Whether the running kernel was booted without what the next one gets, as far as this owner goes."""
        sets = [one for one in (self._old, self.wanted) if one is not None]
        after = next(iter(self.after.values()), [])
        return any(
            effective(self.running, phrase, one) != effective(after, phrase, one)
            for one in sets
            for phrase in one.parameters
        ) or any(
            (find(self.running, word) is None) != (find(after, word) is None) for one in sets for word in one.without
        )

    def apply(self) -> None:
        """Do it, or leave the host as it was and raise."""
        if self.loader is None or not self.changed:
            return
        # Recorded before it is done, forgotten after it is undone: a run killed half-way can be mended and taken back.
        both = {**self.record.owners, self._owner: _union(self._old, self.wanted)}
        recorded = FileSet(
            self._root, [RenderedFile(RECORD, Record(both, self.new_record.original, self.new_record.made).render())]
        )
        taken_over = False
        try:
            recorded.apply()
            self.files.apply()
            taken_over = True
            self.loader.take_over(self._edited)
            self._verify(self.loader)
            if not self.new_record.owners:
                for folder in self.new_record.made:
                    self._root.remove_empty_dir(folder)
            FileSet(self._root, [RenderedFile(RECORD, self.new_record.render())]).apply()
        except HostError as exc:
            left = self.files.rollback()
            if taken_over:
                left += self._restore(self.loader)
            # Where something is left, the next run needs the record to know of it.
            exc.evidence += left or recorded.rollback()
            raise
        if not self.new_record.owners:
            self._root.remove_empty_dir(os.path.dirname(RECORD))

    def _verify(self, loader: BootLoader) -> None:
        lines = loader.lines()
        self.after = lines
        if self.wanted is not None and not self._holds(lines):
            kernel, words = next((one for one in lines.items() if not holds(one[1], self.wanted)))
            raise HostError(
                "bootloader",
                "%s ended without an error, but the next boot would not have the parameters." % loader.program,
                evidence=["%s: %s" % (kernel or "the next boot's command line", " ".join(words))],
                remedy="Look for settings that override these, such as another file in /etc/default/grub.d.",
            )

    def _restore(self, loader: BootLoader) -> list[str]:
        """Have the boot loader take the old files over again, unless what it boots was never replaced."""
        try:
            if loader.lines() != self.before:
                loader.take_over(self.before)
        except HostError as exc:
            return ["not put back: %s" % exc.message]
        return []

    def report(self) -> dict[str, Any]:
        """Return what module results show."""
        return {
            "mechanism": self.loader.name if self.loader else None,
            "before": _shown(self.before),
            "after": _shown(self.after),
            "running": " ".join(self.running),
            "reboot_required": self.reboot_required,
            "files": self.files.changed_paths,
        }

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        header = "kernel command line of the next boot"
        texts = _text(self.before), _text(self.after)
        line = {"before_header": header, "after_header": header, "before": texts[0], "after": texts[1]}
        return ([line] if texts[0] != texts[1] else []) + self.files.diff()


def _union(old: Parameters | None, new: Parameters | None) -> Parameters:
    sets = [one for one in (old, new) if one is not None]
    return Parameters(
        list(dict.fromkeys(phrase for one in sets for phrase in one.parameters)),
        list(dict.fromkeys(word for one in sets for word in one.without)),
    )


def _text(lines: Lines) -> str:
    return "".join("%s%s\n" % (kernel + ": " if kernel else "", " ".join(words)) for kernel, words in lines.items())


def _shown(lines: Lines) -> str | None:
    """Return the first line: that of the default kernel."""
    return next((" ".join(words) for words in lines.values()), None)
