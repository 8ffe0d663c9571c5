# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Whether what is in the clone is what was proven."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from . import table
from .history import History
from .rules import Rule
from .table import Line

DAY = 86400


class State(Enum):
    """What a proof is worth here."""

    PROVEN = "proven"
    CHANGED = "changed"  # something that it rests on is another
    FAILED = "failed"
    UNPROVEN = "unproven"  # there is none


@dataclass(frozen=True)
class Verdict:
    """What is known of one name, and for how many days it has waited for a proof."""

    rule: Rule
    line: Line | None
    state: State
    why: str
    days: float = 0.0


def judge(known: Iterable[Rule], lines: dict[str, Line], history: History) -> list[Verdict]:
    """One verdict for each rule."""
    lacking = history.lacking()
    if lacking:
        return [_without_history(rule, lines.get(rule.name), lacking) for rule in known]
    now = history.time()
    introduced = history.first(table.FILE)
    return [_judge(rule, lines.get(rule.name), history, now, introduced) for rule in known]


def _without_history(rule: Rule, line: Line | None, lacking: str) -> Verdict:
    if line is None:
        return Verdict(rule, None, State.UNPROVEN, "it has no line")
    if not line.passed:
        return Verdict(rule, line, State.FAILED, f"it failed at {line.commit}")
    return Verdict(rule, line, State.CHANGED, f"what changed after {line.commit} is not known: {lacking}")


def _judge(rule: Rule, line: Line | None, history: History, now: int, introduced: int) -> Verdict:
    if line is None or not history.knows(line.commit):
        why = "it has no line" if line is None else f"its line names {line.commit}, which is not in this history"
        # Nothing waits from before the table was there, or from before the thing itself was there whole.
        since = max(introduced, *map(history.first, rule.paths))
        return Verdict(rule, line, State.UNPROVEN, why, _days(now, since))
    if not line.passed:
        return Verdict(rule, line, State.FAILED, f"it failed at {line.commit}", _days(now, history.time(line.commit)))
    change = history.changed(line.commit, rule.paths)
    if change:
        why = f"{_some(change.files)} changed after {line.commit}"
        return Verdict(rule, line, State.CHANGED, why, _days(now, change.since))
    uncommitted = history.uncommitted(rule.paths)
    if uncommitted:
        return Verdict(rule, line, State.CHANGED, f"{_some(uncommitted)} changed here and in no commit")
    return Verdict(rule, line, State.PROVEN, f"nothing that it rests on changed after {line.commit}")


def _days(now: int, since: int) -> float:
    return max(0, now - since) / DAY


def _some(files: tuple[str, ...]) -> str:
    return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
