# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide says of every refusal code and every guard what to do, and every guard has a way that is tried for real."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator

REPOSITORY = Path(__file__).parents[4]
GUARDS = "### What each guard reads"
# An address always has a route. Open vSwitch and bridges of PCI are not in a namespace of their own.
WITHOUT_A_WAY = {"address", "openvswitch", "not_endpoint"}
GUIDE = (REPOSITORY / "docs/guide.md").read_text(encoding="utf-8")


def codes() -> Iterator[str]:
    """Yield the code of every error that the source raises by its name, and of every guard."""
    for path in (REPOSITORY / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = ast.unparse(node.func).rpartition(".")[2]
                code = node.args[0].value
                if called in ("HostError", "Refused", "Guard") and isinstance(code, str):
                    yield code


def rows(heading: str) -> set[str]:
    """Return what is named in the first column of the table below a heading."""
    section = GUIDE.partition("\n%s\n" % heading)[2].partition("\n#")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}


def test_every_code_has_a_row() -> None:
    found = set(codes())
    assert len(found) > 100
    assert found - rows("## Refusals and errors") - rows(GUARDS) == set()


def test_every_guard_has_a_way_on_real_kernel_objects() -> None:
    source = (REPOSITORY / "tests/lockout/ways.py").read_text(encoding="utf-8")
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    tried = {ast.literal_eval(call.args[2]) for call in calls if ast.unparse(call.func) == "Way"}
    assert rows(GUARDS) - tried == WITHOUT_A_WAY
    assert tried - {"", "unreadable"} <= rows(GUARDS)  # what cannot be read is no kind of its own
