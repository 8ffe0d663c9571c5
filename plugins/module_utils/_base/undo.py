# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roll a run back step by step, in reverse order."""

from __future__ import annotations

from typing import Any, Callable

from .errors import HostError


class UndoStack:
    """The undo of each step done so far. One that fails neither stops the others nor hides the error that led here."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Any], bool]] = []

    def push(self, what: str, undo: Callable[[], Any], unless_failed: bool = False) -> None:
        """Note how to undo a step that is about to be done.

        An undo of several parts may return what it could not undo, as FileSet.rollback does. ``unless_failed``: leave
        the step as it is if one that came after it could not be undone. The next run needs its record.
        """
        self._steps.append((what, undo, unless_failed))

    def unwind(self) -> list[str]:
        """Undo everything, the last step first; return a line for each step that could not be undone."""
        problems: list[str] = []
        while self._steps:
            what, undo, unless_failed = self._steps.pop()
            if problems and unless_failed:
                continue
            try:
                left = undo()
                problems += left if isinstance(left, list) else []
            except (HostError, OSError) as exc:
                problems.append("NOT put back: %s: %s" % (what, exc))
        return problems
