# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Command line of tools/proofs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rig.common import REPOSITORY, RigError

from . import child, recording, table, turns
from .history import History
from .rules import IMAGES, MAX_DAYS, PREFIX, find, rules
from .verdicts import State, Verdict, judge


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    top = argparse.ArgumentParser(prog="tools/proofs", description=f"What was proven by running it whole: {table.FILE}")
    top.add_argument("--root", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "check",
        help="say which proofs are not of what is here; exit code 1 if a change waits for its"
        f" proof for more than {MAX_DAYS} days",
    )
    sub = commands.add_parser("run", help="run a command that proves something whole, and record how it ended")
    sub.add_argument("name")
    sub.add_argument("cmd", nargs="+", metavar="COMMAND", help="after --, with its arguments")
    sub = commands.add_parser("record", help="record a run of the commit that is checked out, made some other way")
    sub.add_argument("name")
    sub.add_argument("--seconds", type=int, required=True, metavar="N")
    sub.add_argument("--failed", action="store_true")
    for name, text in (("plan", "say which scenarios it is the turn of"), ("take", "say it, and run them")):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("--budget", type=int, required=True, metavar="SECONDS")
        sub.add_argument("--always", default="", metavar="NAMES", help="scenarios that are run anyway")
        sub.add_argument("--only", metavar="NAMES", help="these scenarios instead, whatever time they take")
        sub.add_argument("--until", type=float, metavar="TIME", help="seconds since 1970 when all has to be over")
    return top


def check(root: Path) -> int:
    """Print a line for every name that is not proven as it is here."""
    known, lines = rules(root), table.read(root)
    nothing = [str(line) for line in lines.values() if line.name not in known]
    if nothing:
        raise RigError(f"{table.FILE} has lines of what there is not", "\n".join(nothing), "remove them")
    history = History(root)
    lacking = history.lacking()
    if lacking:
        print(f"Not checked, because it cannot be said what changed after a proof: {lacking}.")
        return 0
    verdicts = judge(known.values(), lines, history)
    proven = [verdict for verdict in verdicts if verdict.state is State.PROVEN]
    print(f"{len(proven)} of {len(verdicts)} are proven as they are here ({table.FILE}).")
    for verdict in verdicts:
        if verdict.state is not State.PROVEN:
            print(f"  {verdict.state.value:8} {verdict.rule.name}, waiting for {verdict.days:.1f} days: {verdict.why}")
    late = [verdict for verdict in verdicts if verdict.days > MAX_DAYS]
    if late:
        raise RigError(
            f"{len(late)} proofs have been waited for longer than {MAX_DAYS} days",
            "\n".join(f"{verdict.rule.name}: {verdict.days:.0f} days" for verdict in late),
            f"run them and commit {table.FILE}: make " + " ".join(verdict.rule.name for verdict in late),
        )
    return 0


def plan(args: argparse.Namespace) -> turns.Plan:
    """Choose, and say what was chosen."""
    always = args.always.split()
    candidates = [rule for rule in rules(args.root).values() if rule.scenario and rule.scenario not in always]
    verdicts: list[Verdict] = judge(candidates, table.read(args.root), History(args.root))
    if args.only is None:
        chosen = turns.choose(verdicts, args.budget)
        print(f"Scenarios besides {args.always or 'none'}, in turn, in about {args.budget} s:")
    else:
        chosen = turns.named(verdicts, [name for name in args.only.split() if name not in always])
        print(f"Scenarios besides {args.always or 'none'}, as SCENARIOS says:")
    for turn in chosen.taken:
        print(f"  {turn}")
    if not chosen.taken:
        print("  none")
    print_left(chosen.left)
    return chosen


def print_left(left: tuple[tuple[str, str], ...]) -> None:
    """Say what is left out."""
    if left:
        print("Left out:")
    for name, why in left:
        print(f"  {name}: {why}")
    sys.stdout.flush()


def take(args: argparse.Namespace) -> int:
    """Run the scenarios of the plan; a failure of one does not keep the others from their turn."""
    chosen = plan(args)
    start, left, results = time.monotonic(), list(chosen.left), []
    for turn in chosen.taken:
        elapsed = time.monotonic() - start
        # A guess is easily wrong by so much. The table's times are without images, which may have to be built first.
        needed = turn.seconds + IMAGES if turn.measured else 2 * turn.seconds
        if args.until is not None and args.only is None and time.time() + needed > args.until:
            remaining = max(0, args.until - time.time())
            left.append((turn.name, f"may need {needed} s, {remaining:.0f} s are left of the run"))
            continue
        # The guesses may have been too low.
        if args.only is None and results and elapsed + turn.seconds > args.budget:
            left.append(
                (turn.name, f"needs about {turn.seconds} s, {elapsed:.0f} s of {args.budget} s were gone already")
            )
            continue
        code, interrupted = child.run(["make", "--no-print-directory", "-C", str(args.root), PREFIX + turn.name])
        if interrupted:
            return code
        results.append((turn, code, time.monotonic() - start - elapsed))
    print("Scenarios in turn:")
    for turn, code, seconds in results:
        print(f"  {turn.name} {'FAILED' if code else 'passed'} after {seconds:.0f} s; {turn.why}")
    if not results:
        print("  none")
    print_left(tuple(left))
    print_new(args.root)
    return 1 if any(code for _turn, code, _seconds in results) else 0


def print_new(root: Path) -> None:
    """Print the table's lines that are in no commit."""
    history = History(root)
    fresh = table.new(table.read(root).values(), "" if history.absent() else history.committed(table.FILE))
    if fresh:
        print(f"To be committed: {table.FILE} has these lines now, in the places of those with the same names:")
    for line in fresh:
        print(line)
    sys.stdout.flush()


def dispatch(args: argparse.Namespace) -> int:
    """Do what was asked; the exit code."""
    if args.command == "check":
        return check(args.root)
    if args.command == "plan":
        plan(args)
        return 0
    if args.command == "take":
        return take(args)
    rule = find(rules(args.root), args.name)
    if args.command == "run":
        return recording.run(args.root, rule, args.cmd)
    commit, reason = recording.commit_of(History(args.root), rule)
    if reason:
        print(f"proofs: no line of {rule.name}: {reason}")
    else:
        print(recording.record(args.root, rule, commit, not args.failed, args.seconds))
    return 0


def main() -> int:
    try:
        return dispatch(parser().parse_args())
    except RigError as exc:
        print(exc, file=sys.stderr)
        return 1
