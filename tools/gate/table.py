# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The table of proofs: one line for each name, the last run's, in a Markdown file that people read and commit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rig.common import RigError

FILE = "docs/proofs.md"
HEADER = "| proof | result | commit | ended (UTC) | seconds | machine |\n|---|---|---|---|--:|---|\n"
PATTERN = re.compile(
    r"\| (?P<name>[a-z0-9-]+) \| (?P<result>passed|failed) \| (?P<commit>[0-9a-f]{12})"
    r" \| (?P<ended>\d{4}-\d\d-\d\d \d\d:\d\d) \| (?P<seconds>\d+) \| (?P<machine>[^|]+) \|"
)


@dataclass(frozen=True)
class Line:
    """The result of the last whole run of one name."""

    name: str
    passed: bool
    commit: str
    ended: str
    seconds: int
    machine: str

    def __str__(self) -> str:
        result = "passed" if self.passed else "failed"
        return f"| {self.name} | {result} | {self.commit} | {self.ended} | {self.seconds} | {self.machine} |"


def parse(text: str) -> tuple[str, dict[str, Line]]:
    """Split the file into the text above the lines, and the lines by name."""
    above, header, below = text.partition(HEADER)
    if not header:
        raise RigError(f"{FILE} has no table of proofs", text[-300:], "the table's head must be:\n" + HEADER)
    lines: dict[str, Line] = {}
    for raw in filter(None, below.splitlines()):
        match = PATTERN.fullmatch(raw)
        if match is None:
            raise RigError(
                f"{FILE} has a line that is no proof",
                raw,
                "remove it, or write it as tools/proofs record does; the table is the end of the file",
            )
        line = Line(
            match["name"],
            match["result"] == "passed",
            match["commit"],
            match["ended"],
            int(match["seconds"]),
            match["machine"],
        )
        if line.name in lines:
            raise RigError(f"{FILE} has two lines of {line.name}", f"{lines[line.name]}\n{line}", "keep the newer one")
        lines[line.name] = line
    return above, lines


def read(root: Path) -> dict[str, Line]:
    """The lines of the file as it is now, by name."""
    return parse(_text(root))[1]


def put(root: Path, line: Line) -> None:
    """Write a line in the place of the one that has its name."""
    above, lines = parse(_text(root))
    lines[line.name] = line
    (root / FILE).write_text(above + HEADER + "".join(f"{lines[name]}\n" for name in sorted(lines)), encoding="utf-8")


def new(now: Iterable[Line], text: str) -> list[Line]:
    """The lines that another text of the file, if there is one, does not have."""
    before = parse(text)[1] if text else {}
    return [line for line in now if before.get(line.name) != line]


def _text(root: Path) -> str:
    try:
        return (root / FILE).read_text(encoding="utf-8")
    except OSError as exc:
        raise RigError("the table of proofs cannot be read", str(exc), f"get it back: git checkout -- {FILE}") from exc
