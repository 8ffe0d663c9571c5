# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which scenarios a test run takes besides those that it always runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rig.common import RigError

from .verdicts import State, Verdict


@dataclass(frozen=True)
class Turn:
    """A scenario, why it is its turn, and how long that is expected to take."""

    name: str
    why: str
    seconds: int
    measured: bool

    def __str__(self) -> str:
        return f"{self.name} (about {self.seconds} s, {'measured' if self.measured else 'a guess'}): {self.why}"


@dataclass(frozen=True)
class Plan:
    """The turns that are taken, in order, and those that are left out, each with its reason."""

    taken: tuple[Turn, ...]
    left: tuple[tuple[str, str], ...]


def choose(verdicts: Sequence[Verdict], budget: int) -> Plan:
    """Take what is not proven as it is, then the rest, each the oldest proof first, as the budget allows."""
    taken: list[Turn] = []
    left: list[tuple[str, str]] = []
    remaining = budget
    for verdict in sorted(verdicts, key=_order):
        turn = _turn(verdict)
        if turn.seconds <= remaining:
            taken.append(turn)
            remaining -= turn.seconds
        elif turn.seconds > budget:
            left.append(
                (
                    turn.name,
                    f"takes about {turn.seconds} s, more than the whole budget of {budget} s;"
                    f" run it by itself: make {verdict.rule.name}",
                )
            )
        else:
            left.append(
                (turn.name, f"needs about {turn.seconds} s, {remaining} s of the budget were left; {verdict.why}")
            )
    return Plan(tuple(taken), tuple(left))


def named(verdicts: Sequence[Verdict], names: Sequence[str]) -> Plan:
    """Take exactly the scenarios that were named on the command line."""
    known = {verdict.rule.scenario: verdict for verdict in verdicts}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RigError(
            f"there is no scenario {', '.join(unknown)} to choose",
            "there are, besides those that always run: " + ", ".join(known),
            'name some of these: SCENARIOS="one another"',
        )
    return Plan(
        tuple(_turn(known[name]) for name in dict.fromkeys(names)),
        tuple((name, "not in SCENARIOS") for name in known if name not in names),
    )


def _order(verdict: Verdict) -> tuple[bool, str, str]:
    # What never passed is older than everything that did.
    passed = verdict.line is not None and verdict.line.passed
    return verdict.state is State.PROVEN, verdict.line.ended if verdict.line and passed else "", verdict.rule.name


def _turn(verdict: Verdict) -> Turn:
    line = verdict.line
    if line is None:
        seconds, measured = verdict.rule.seconds, False
    elif line.passed:
        seconds, measured = line.seconds, True
    else:  # a run that failed may have ended early
        seconds, measured = max(line.seconds, verdict.rule.seconds), False
    return Turn(verdict.rule.scenario, verdict.why, seconds, measured)
