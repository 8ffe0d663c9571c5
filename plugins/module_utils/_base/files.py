# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small transaction of rendered files: compared, shown as a diff, written all or none."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from .errors import HostError
from .fs import Root

# How every file of ours begins.
HEADER = "# Written by the Ansible collection baremetal.noiommu; changes are overwritten.\n"


class RenderedFile(NamedTuple):
    """A file as it shall be; no content means that it shall not be there."""

    path: str
    content: str | None
    mode: int = 0o644
    program: bool = False  # ours and long: a diff shows its digest
    link: bool = False  # a symbolic link, and the content is where it points


class _Before(NamedTuple):
    content: str | None
    mode: int | None
    link: bool = False


class FileSet:
    """The wanted files beside what the host has.

    The comparison is made once, when the set is made: what check mode predicts is what :meth:`apply` does.
    """

    def __init__(self, root: Root, files: list[RenderedFile]) -> None:
        self._root = root
        self._paths = [one.path for one in files]
        beside = [(one, _look(root, one.path, one.link)) for one in files]
        self._changes = [(one, before) for one, before in beside if _differs(one, before)]
        self._done: list[tuple[RenderedFile, _Before]] = []
        self._made_dirs: list[str] = []

    @property
    def changed(self) -> bool:
        """Whether any file differs."""
        return bool(self._changes)

    @property
    def changed_paths(self) -> list[str]:
        """The paths that differ, in the given order."""
        return [one.path for one, _before in self._changes]

    def diff(self) -> list[dict[str, str]]:
        """Return the differences in the form that Ansible prints."""
        return [
            {
                "before_header": _header(one.path, before),
                "after_header": _header(one.path, _Before(one.content, one.mode, one.link)),
                "before": _shown(before.content, one.program),
                "after": _shown(one.content, one.program),
            }
            for one, before in self._changes
        ]

    def apply(self) -> None:
        """Write and remove what differs; if one cannot be, put back those already done and raise."""
        for path in self._paths:  # also of those that are as they shall be: a run that was killed may have left one
            self._root.remove_second(path)
        try:
            for one, before in self._changes:
                if one.content is not None:
                    self._made_dirs += _missing_dirs(self._root, os.path.dirname(one.path))
                self._write(one.path, _Before(one.content, one.mode, one.link))
                self._done.append((one, before))
        except HostError as exc:
            exc.evidence += self.rollback()
            raise

    def rollback(self) -> list[str]:
        """Put back what :meth:`apply` changed, made directories included; return what could not be."""
        failed = []
        while self._done:
            one, before = self._done.pop()
            try:
                self._write(one.path, before)
            except HostError as exc:
                failed.append("not put back: %s" % exc.message)
        while self._made_dirs:
            self._root.remove_empty_dir(self._made_dirs.pop())
        return failed

    def _write(self, path: str, what: _Before) -> None:
        if what.content is None:
            self._root.remove_file(path)
        elif what.link:
            self._root.write_link(path, what.content)
        else:
            self._root.write_file(path, what.content, what.mode if what.mode is not None else 0o644)


def _look(root: Root, path: str, link: bool) -> _Before:
    if link and os.path.islink(root.path(path)):
        return _Before(os.readlink(root.path(path)), None, True)
    data = root.read_bytes(path)
    if data is None:
        if root.exists(path):
            raise HostError(
                "file",
                "%s is there but is not a readable file." % path,
                evidence=["%s: not a regular file, a dangling symbolic link, or unreadable" % path],
                remedy="Run with become: true, or move what is there out of the way, then run again.",
            )
        return _Before(None, None)
    return _Before(data.decode("utf-8", "surrogateescape"), os.stat(root.path(path)).st_mode & 0o7777)


def _differs(wanted: RenderedFile, before: _Before) -> bool:
    if wanted.content is None or before.content is None:
        return wanted.content is not before.content
    if wanted.link or before.link:
        return wanted.content != before.content or not before.link
    return wanted.content != before.content or wanted.mode != before.mode


def _shown(content: str | None, program: bool) -> str:
    if content is None or not program:
        return content or ""
    return "sha256 %s\n" % hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _header(path: str, what: _Before) -> str:
    if what.content is None or (what.mode is None and not what.link):
        return "%s (absent)" % path
    return "%s (symbolic link)" % path if what.link else "%s (mode %04o)" % (path, what.mode)


def _missing_dirs(root: Root, path: str) -> list[str]:
    missing: list[str] = []
    while path not in ("", "/") and not root.exists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return missing
