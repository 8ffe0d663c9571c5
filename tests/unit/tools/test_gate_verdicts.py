# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which proofs still hold, and what the lint says of those that do not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.gate_clone import (
    Clone,
)
from gate import cli, rules, table
from gate.history import History
from rig.common import RigError


def test_a_proof_holds_until_something_that_it_rests_on_changes(clone):
    clone.prove_all(clone.head())
    clone.commit()
    assert {verdict.state.value for verdict in clone.verdicts().values()} == {"proven"}
    clone.write("molecule/one/tests/test_x.py", "1")
    clone.commit(1)
    clone.write("README.md", "words")
    clone.write("plugins/README.md", "words")
    clone.commit(2)
    assert [clone.state(name) for name in ("one", "two")] == ["changed", "proven"]
    verdict = clone.verdicts()["molecule-one"]
    assert "molecule/one/tests/test_x.py changed" in verdict.why
    assert verdict.days == 2, "since the change, not since the proof"
    clone.write("plugins/module.py", "2")
    clone.write("plugins/other.py", "2")
    clone.commit(3)
    assert clone.state("two") == "changed" and "plugins/module.py and 1 more" in clone.verdicts()["molecule-two"].why
    assert clone.verdicts()["molecule-one"].days == 5, "the first change waits, whatever came later"
    assert clone.verdicts()["kmod-fuzz"].state.value == "proven"


def test_what_is_taken_back_is_proven_again(clone):
    clone.prove_all(clone.head())
    for text, state in (("2", "changed"), ("1", "proven")):
        clone.write("plugins/module.py", text)
        clone.commit(1)
        assert clone.state("one") == state


def test_what_is_in_no_commit_is_not_proven(clone):
    clone.prove_all(clone.head())
    clone.commit()
    clone.write("molecule/one/new.yml", "1")
    (clone.root / "plugins/module.py").unlink()
    assert [clone.state(name) for name in ("one", "two")] == ["changed", "changed"]
    verdict = clone.verdicts()["molecule-one"]
    assert "molecule/one/new.yml and 1 more changed here and in no commit" in verdict.why and verdict.days == 0


def test_without_a_line_or_with_a_failed_or_a_foreign_one(clone):
    head = clone.head()
    clone.line("molecule-one", head, passed=False)
    clone.line("molecule-two", "f" * 12)
    clone.commit(4)
    assert [clone.state(name) for name in ("one", "two", "three")] == ["failed", "unproven", "unproven"]
    judged = clone.verdicts()
    assert "failed at " + head[:12] in judged["molecule-one"].why and judged["molecule-one"].days == 4
    assert "not in this history" in judged["molecule-two"].why and judged["molecule-two"].days == 4
    assert "no line" in judged["molecule-three"].why and judged["molecule-three"].days == 4
    clone.write("molecule/four/molecule.yml", "1")
    assert clone.verdicts()["molecule-four"].days == 0
    clone.commit(5)
    clone.commit(1)
    assert clone.verdicts()["molecule-four"].days == 1, "it waits since it is there"
    assert clone.verdicts()["molecule-three"].days == 10


def test_the_lint_names_what_is_not_proven_and_fails_when_it_is_late(clone, capsys):
    clone.prove_all(clone.head())
    clone.commit()
    assert clone.run("check") == 0
    assert re.match(r"(\d+) of \1 are proven", capsys.readouterr().out)
    clone.write("molecule/one/molecule.yml", "broken")
    clone.commit(40)
    clone.line("molecule-two", clone.head(), passed=False)
    clone.commit(rules.MAX_DAYS)
    assert clone.run("check") == 0, "old proofs do no harm while nothing changed, and 30 days are not more than 30"
    out = capsys.readouterr().out
    assert "changed  molecule-one, waiting for 30.0 days: molecule/one/molecule.yml changed" in out
    assert "failed   molecule-two" in out and "molecule-three" not in out
    clone.commit(1)
    with pytest.raises(RigError, match="2 proofs have been waited for longer than 30 days") as caught:
        clone.run("check")
    assert "molecule-one: 31 days" in caught.value.evidence and "make molecule-one molecule-two" in caught.value.remedy


def test_the_lint_refuses_a_line_of_what_there_is_not(clone):
    clone.line("molecule-gone", clone.head())
    with pytest.raises(RigError, match="lines of what there is not") as caught:
        clone.run("check")
    assert "molecule-gone" in caught.value.evidence and caught.value.remedy


def without_history(clone: Clone, how: str) -> Path:
    """The files of the clone in a shallow one, in none, or below another."""
    copy = clone.root.parent / ("outer/copy" if how == "nested" else "copy")
    if how == "shallow":
        clone.git("clone", "-q", "--depth", "1", f"file://{clone.root}", str(copy))
        return copy
    copy.mkdir(parents=True)
    if how == "nested":
        subprocess.run(["git", "init", "-q", str(copy.parent)], check=True)
    archive = subprocess.run(["git", "-C", str(clone.root), "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(copy)], input=archive, check=True)
    return copy


@pytest.mark.parametrize(
    ("how", "said"),
    [("shallow", "--unshallow"), ("tarball", "no clone that git can read"), ("nested", "no clone of its own")],
)
def test_where_there_is_no_history_it_is_said(clone, how, said, capsys, monkeypatch):
    clone.line("molecule-two", clone.head(), "2026-01-02 00:00")
    clone.line("molecule-one", clone.head(), "2026-01-03 00:00")
    clone.line("molecule-three", clone.head(), "2026-01-01 00:00", passed=False)
    clone.commit()
    clone.commit()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(clone.root.parent))
    clone.root = without_history(clone, how)
    assert clone.run("check") == 0
    out = capsys.readouterr().out
    assert "Not checked" in out and said in out
    assert [turn.name for turn in clone.chosen().taken][:3] == ["three", "two", "one"], "by the table alone"
    assert clone.run("run", "molecule-one", "--", "true") == 0
    written = table.read(clone.root)["molecule-one"]
    assert (written.ended > "2026-01-03 00:00") is (how == "shallow"), "a shallow clone knows its commit"
    assert "no line of molecule-one" in capsys.readouterr().out or how == "shallow"


def test_without_git(clone, monkeypatch):
    monkeypatch.setenv("PATH", str(clone.root))
    assert "git" in History(clone.root).lacking()


def test_an_error_is_printed_and_not_raised(clone, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["proofs", "--root", str(clone.root), "record", "none", "--seconds", "1"])
    assert cli.main() == 1
    err = capsys.readouterr().err
    assert "error: nothing is proven" in err and "remedy:" in err
