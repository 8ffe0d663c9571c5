# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What a proof rests on, and the table of proofs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.gate_clone import (
    ABOVE,
)
from gate import rules, table
from rig.common import REPOSITORY, RigError


def test_every_path_that_a_proof_rests_on_exists():
    known = rules.rules(REPOSITORY)
    assert "molecule-default" in known and "kmod-fuzz" in known and "bench-bind" in known
    assert {path for rule in known.values() for path in rule.paths if not (REPOSITORY / path).exists()} == set()
    assert {"molecule-" + name for name in rules.ALSO_USED} | set(rules.ESTIMATES) <= set(known)


def test_make_has_a_target_of_every_name():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    recorded = set(re.findall(r"\$\(PROOF\) ([a-z0-9-]+)", makefile))
    assert recorded == {*rules.OTHERS, "molecule-"}  # molecule-$*
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in rules.OTHERS)


def imported(path: Path, modules: set[str]) -> set[str]:
    """Which of the modules in tests/ a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.split(".")[0] for name in names} & modules


@pytest.mark.parametrize("name", [name for name, rule in rules.rules(REPOSITORY).items() if rule.scenario])
def test_a_scenario_rests_on_every_module_that_its_tests_import(name):
    rule = rules.rules(REPOSITORY)[name]
    tests = REPOSITORY / "tests"
    modules = {path.stem for path in tests.glob("*.py")} | {"report"}
    folders = (REPOSITORY / "molecule" / rule.scenario, REPOSITORY / "molecule/shared/tests")
    wanted = [path for folder in folders for path in folder.rglob("*.py")]
    seen: set[str] = set()
    while wanted:
        for module in imported(wanted.pop(), modules) - seen:
            seen.add(module)
            wanted += [tests / f"{module}.py"] if (tests / f"{module}.py").exists() else []
    assert "live" in seen
    paths = {f"tests/{module}" if module == "report" else f"tests/{module}.py" for module in seen}
    assert paths - set(rule.paths) == set()


def test_a_line_replaces_the_one_of_its_name_and_nothing_else(clone):
    clone.line("molecule-two", "a" * 12)
    clone.line("molecule-one", "b" * 12, passed=False)
    clone.line("molecule-two", "c" * 12, seconds=7)
    text = (clone.root / table.FILE).read_text(encoding="utf-8")
    assert text == ABOVE + table.HEADER + (
        "| molecule-one | failed | bbbbbbbbbbbb | 2026-01-01 00:00 | 100 | 2 cores, QEMU TCG |\n"
        "| molecule-two | passed | cccccccccccc | 2026-01-01 00:00 | 7 | 2 cores, QEMU TCG |\n"
    )
    assert table.read(clone.root)["molecule-two"].seconds == 7


@pytest.mark.parametrize(
    ("below", "cause"),
    [
        ("| molecule-one | passed | abc | 2026-01-01 00:00 | 1 | x |\n", "no proof"),
        ("| molecule-one | maybe | aaaaaaaaaaaa | 2026-01-01 00:00 | 1 | x |\n", "no proof"),
        ("words\n", "no proof"),
        ("| a | passed | aaaaaaaaaaaa | 2026-01-01 00:00 | 1 | x |\n" * 2, "two lines of a"),
    ],
)
def test_a_table_that_was_written_by_hand_and_wrongly(below, cause):
    with pytest.raises(RigError, match=cause) as caught:
        table.parse(table.HEADER + below)
    assert caught.value.evidence and caught.value.remedy


def test_no_table(tmp_path):
    with pytest.raises(RigError, match="no table") as caught:
        table.parse("words\n")
    assert caught.value.evidence and "| proof |" in caught.value.remedy
    with pytest.raises(RigError, match="cannot be read") as caught:
        table.read(tmp_path)
    assert caught.value.evidence and "git checkout" in caught.value.remedy


def test_the_committed_table_is_one():
    lines = table.read(REPOSITORY)
    assert set(lines) <= set(rules.rules(REPOSITORY))
