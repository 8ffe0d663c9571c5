# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Write the result of a run into the table, if the run was of a commit."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from rig import accel

from . import child, table
from .history import History
from .rules import Rule

DIGITS = 12  # of a commit's name


def commit_of(history: History, rule: Rule) -> tuple[str, str]:
    """Return the commit that a run of this clone proves something about, or why it proves nothing about any."""
    absent = history.absent()
    if absent:
        return "", absent
    uncommitted = history.uncommitted(rule.paths)
    if uncommitted:
        return "", f"what it rests on is in no commit: {', '.join(uncommitted[:5])}"
    return history.head(), ""


def machine() -> str:
    """This machine in words."""
    emulation = accel.known()
    cores = os.cpu_count() or 1
    return f"{cores} core{'s' if cores > 1 else ''}" + (f", QEMU {emulation.upper()}" if emulation else "")


def record(root: Path, rule: Rule, commit: str, passed: bool, seconds: float) -> table.Line:
    """Put a line into the table."""
    ended = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    line = table.Line(rule.name, passed, commit[:DIGITS], ended, round(seconds), machine())
    table.put(root, line)
    return line


def run(root: Path, rule: Rule, command: Sequence[str]) -> int:
    """Run a command that proves something whole, and record how it ended; return its exit code."""
    history = History(root)
    before, reason = commit_of(history, rule)
    start = time.monotonic()
    code, interrupted = child.run(command)
    seconds = time.monotonic() - start
    if interrupted:
        reason = "it was interrupted"
    elif before:
        after, reason = commit_of(history, rule)
        if after and history.changed(before, rule.paths):
            reason = f"what it rests on changed while it ran, between {before[:DIGITS]} and {after[:DIGITS]}"
    if reason:
        print(f"proofs: no line of {rule.name}: {reason}", flush=True)
    else:
        line = record(root, rule, before, code == 0, seconds)
        print(f"proofs: new in {table.FILE}, to be committed:\n{line}", flush=True)
    return code
