# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends a module before any of its steps, as SIGKILL does: nothing that it does afterwards has any effect."""

from __future__ import annotations

import itertools
import os
from typing import Any, Callable, Iterator

import pytest

from .tree import Tree

CHANGING = ("rename", "unlink", "remove", "rmdir", "mkdir", "symlink", "link", "chmod", "chown")


class Killed(BaseException):
    """Not an Exception: nothing on the way may take it for its own failure."""


class Killer:
    """Counts what changes the host, and lets a run get so far only. What a fake does for a command is one step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *fakes: tuple[object, str]) -> None:
        self._left: int | None = None
        self._inside = False
        for name in CHANGING:
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", lambda handle: None)  # nobody cuts the power here, and it takes its time
        for fake, method in fakes:
            monkeypatch.setattr(fake, method, self._guarded(getattr(fake, method), whole=True))

    def _guarded(self, real: Callable[..., Any], whole: bool = False) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self._inside or self._left is None:
                return real(*args, **options)
            self._left -= 1
            if self._left < 0:
                raise Killed
            self._inside = whole
            try:
                return real(*args, **options)
            finally:
                self._inside = False

        return call

    def each(self, prepare: Callable[[], Any], run: Callable[[], Any]) -> Iterator[int]:
        """Prepare and run, killed before the first step, the second, and so on to the end; yield after each."""
        for steps in itertools.count():
            prepare()
            self._left = steps
            try:
                run()
                assert steps, "nothing was done that could be killed"
                return
            except Killed:
                pass
            finally:
                self._left = None
            yield steps


def left(tree: Tree) -> dict[str, str]:
    """Return all of a host but the directory that vfio_binding removes if nothing is in it."""
    return {path: text for path, text in tree.content().items() if (path, text) != ("/var/lib/noiommu", "dir")}
