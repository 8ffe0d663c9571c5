# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""A clone with scenarios and a history of its own, to be judged by the gate."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gate import cli, rules, table, turns, verdicts
from gate.history import History

DAY = 86400
START = 1_700_000_000
ABOVE = "# Proofs\n\nWords, and no line that is one.\n\n"


class Clone:
    """A repository with three scenarios."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, START
        root.mkdir()
        self.git("init", "-q", "-b", "main")
        for name in ("default", "one", "two", "three"):
            self.write(f"molecule/{name}/molecule.yml", name)
        self.write("plugins/module.py", "1")
        self.write(table.FILE, ABOVE + table.HEADER)
        self.commit()

    def git(self, *arguments: str) -> str:
        who = {f"GIT_{role}_{what}": "someone" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {f"GIT_{role}_DATE": f"{self.now} +0000" for role in ("AUTHOR", "COMMITTER")}
        return subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **who, **dates},
        ).stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def commit(self, days: float = 0) -> str:
        """Commit what was written, so many days later; return the commit."""
        self.now += int(days * DAY)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a change")
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def line(
        self, name: str, commit: str, ended: str = "2026-01-01 00:00", *, passed: bool = True, seconds: int = 100
    ) -> None:
        table.put(self.root, table.Line(name, passed, commit[:12], ended, seconds, "2 cores, QEMU TCG"))

    def prove_all(self, commit: str, ended: str = "2026-01-01 00:00") -> None:
        for name in rules.rules(self.root):
            self.line(name, commit, ended)

    def verdicts(self) -> dict[str, verdicts.Verdict]:
        judged = verdicts.judge(rules.rules(self.root).values(), table.read(self.root), History(self.root))
        return {verdict.rule.name: verdict for verdict in judged}

    def state(self, scenario: str) -> str:
        return self.verdicts()["molecule-" + scenario].state.value

    def run(self, *arguments: str) -> int:
        """Run the command line in this process."""
        return cli.dispatch(cli.parser().parse_args(["--root", str(self.root), *arguments]))

    def chosen(self, budget: int = 1500, always: str = "default") -> turns.Plan:
        known = [verdict for verdict in self.verdicts().values() if verdict.rule.scenario not in ("", always)]
        return turns.choose(known, budget)
