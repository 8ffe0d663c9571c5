# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rendered files: compared with the host, shown as a diff, and written all or none."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import NamedTuple

from .errors import HostError
from .fs import Root
from .undo import UndoStack

# The first line of every file that this collection writes.
HEADER = "# Written by the Ansible collection baremetal.noiommu; changes are overwritten.\n"

# What a diff has above the names of files that are removed: their content says nothing, and is long.
REMOVED = "removed files"


class RenderedFile(NamedTuple):
    """A file's desired state; without content, it must not exist."""

    path: str
    content: str | None
    mode: int = 0o644
    program: bool = False  # a long program of ours: a diff shows its digest
    link: bool = False  # a symbolic link; the content is its target


class _Found(NamedTuple):
    content: str | None
    mode: int | None
    link: bool = False


class FileSet:
    """The desired files, compared with those on the host.

    They are compared once, in the constructor: what check mode predicts is what :meth:`apply` does.
    """

    def __init__(self, root: Root, files: list[RenderedFile]) -> None:
        self._root = root
        self._paths = [file.path for file in files]
        beside = [(file, _look(root, file.path, file.link)) for file in files]
        self._changes = [(file, found) for file, found in beside if _differs(file, found)]
        self._undo = UndoStack()

    @property
    def changed(self) -> bool:
        """Whether any file differs."""
        return bool(self._changes)

    @property
    def changed_paths(self) -> list[str]:
        """The paths that differ, in the given order."""
        return [file.path for file, _found in self._changes]

    def diff(self) -> list[dict[str, str]]:
        """Return the differences in the form that Ansible prints."""
        parts = [
            {
                "before_header": _header(file.path, found),
                "after_header": _header(file.path, _wanted(file)),
                "before": _shown(found.content, file.program),
                "after": _shown(file.content, file.program),
            }
            for file, found in self._changes
            if file.content is not None
        ]
        gone = "".join("%s\n" % file.path for file, _found in self._changes if file.content is None)
        return parts + (
            [{"before_header": REMOVED, "after_header": REMOVED, "before": gone, "after": ""}] if gone else []
        )

    def apply(self) -> None:
        """Write and remove what differs; if one file fails, restore those already done and raise."""
        for path in self._paths:  # also of unchanged files: a killed run may have left one
            self._root.remove_second(path)
        try:
            for file, found in self._changes:
                if file.content is not None:
                    for folder in _missing_dirs(self._root, os.path.dirname(file.path)):
                        self._undo.push(folder, partial(self._root.remove_empty_dir, folder))
                self._write(file.path, _wanted(file))
                self._undo.push(file.path, partial(self._write, file.path, found))
        except HostError as exc:
            exc.evidence += self.rollback()
            raise

    def rollback(self) -> list[str]:
        """Restore what :meth:`apply` changed, new directories included; return what could not be restored."""
        return self._undo.unwind()

    def _write(self, path: str, what: _Found) -> None:
        if what.content is None:
            self._root.remove_file(path)
        elif what.link:
            self._root.write_link(path, what.content)
        else:
            self._root.write_file(path, what.content, what.mode if what.mode is not None else 0o644)


def _wanted(file: RenderedFile) -> _Found:
    return _Found(file.content, file.mode, file.link)


def _look(root: Root, path: str, link: bool) -> _Found:
    if link and os.path.islink(root.path(path)):
        return _Found(os.readlink(root.path(path)), None, True)
    data = root.read_bytes(path)
    if data is None:
        if root.exists(path):
            raise HostError(
                "file",
                "%s exists but is not a readable file." % path,
                evidence=["%s: not a regular file, a dangling symbolic link, or unreadable" % path],
                remedy="Run with become: true, or move it out of the way, then run again.",
            )
        return _Found(None, None)
    return _Found(data.decode("utf-8", "surrogateescape"), os.stat(root.path(path)).st_mode & 0o7777)


def _differs(wanted: RenderedFile, found: _Found) -> bool:
    if wanted.content is None or found.content is None:
        return wanted.content is not found.content
    if wanted.link or found.link:
        return wanted.content != found.content or not found.link
    return wanted.content != found.content or wanted.mode != found.mode


def _shown(content: str | None, program: bool) -> str:
    if content is None or not program:
        return content or ""
    return "sha256 %s\n" % hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _header(path: str, what: _Found) -> str:
    if what.content is None:
        return "%s (absent)" % path
    if what.link:
        return "%s (symbolic link)" % path
    return "%s (absent)" % path if what.mode is None else "%s (mode %04o)" % (path, what.mode)


def _missing_dirs(root: Root, path: str) -> list[str]:
    missing: list[str] = []
    while path not in ("", "/") and not root.exists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return missing
