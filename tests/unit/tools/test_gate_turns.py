# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which scenarios have their turn, and taking it: nothing is run but git, make and small commands."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.gate_clone import (
    Clone,
)
from gate import rules, table
from rig.common import REPOSITORY, RigError


def test_what_changed_comes_first_and_then_the_oldest(clone):
    head = clone.head()
    for name, ended in (("one", "2026-01-03 00:00"), ("two", "2026-01-02 00:00"), ("three", "2026-01-01 00:00")):
        clone.line("molecule-" + name, head, ended)
    clone.commit()
    assert [turn.name for turn in clone.chosen().taken] == ["three", "two", "one"]
    clone.write("molecule/one/molecule.yml", "changed")
    clone.write("molecule/two/molecule.yml", "changed")
    clone.commit()
    assert [turn.name for turn in clone.chosen().taken] == ["two", "one", "three"]
    clone.line("molecule-one", head, "2026-01-03 00:00", passed=False)
    assert [turn.name for turn in clone.chosen(9999).taken] == ["one", "two", "three"], "no proof is the oldest proof"


def test_the_budget_and_what_is_left_out(clone):
    head = clone.head()
    clone.line("molecule-one", head, "2026-01-01 00:00", seconds=700)
    clone.line("molecule-two", head, "2026-01-02 00:00", seconds=400)
    clone.line("molecule-three", head, "2026-01-03 00:00", seconds=300)
    clone.commit()
    plan = clone.chosen(1000)
    assert [(turn.name, turn.seconds) for turn in plan.taken] == [("one", 700), ("three", 300)]
    assert all(turn.measured for turn in plan.taken)
    ((name, why),) = plan.left
    assert name == "two" and "needs about 400 s, 300 s of the budget were left" in why
    name, why = clone.chosen(699).left[0]
    assert name == "one" and "more than the whole budget" in why and "make molecule-one" in why


def test_guesses_where_nothing_was_measured(clone):
    clone.write("molecule/faults/molecule.yml", "1")
    clone.line("molecule-one", clone.head(), passed=False, seconds=3)
    clone.line("molecule-two", clone.head(), passed=False, seconds=rules.ESTIMATE + 1)
    clone.commit()
    plan = clone.chosen(3 * rules.ESTIMATE + 1)
    assert {turn.name: (turn.seconds, turn.measured) for turn in plan.taken} == {
        "one": (rules.ESTIMATE, False),
        "two": (rules.ESTIMATE + 1, False),
        "three": (rules.ESTIMATE, False),
    }
    assert [name for name, why in plan.left] == ["faults"] and "6000 s" in plan.left[0][1]


def test_every_scenario_has_its_turn_within_as_many_landings_as_there_are(clone):
    seen = []
    for day in range(3):
        clone.write("plugins/module.py", f"change {day}")
        clone.commit(1)
        (turn,) = clone.chosen(rules.ESTIMATE).taken[:1]
        seen.append(turn.name)
        clone.line("molecule-" + turn.name, clone.head(), f"2026-01-0{day + 1} 00:00", seconds=rules.ESTIMATE)
        clone.commit()
    assert sorted(seen) == ["one", "three", "two"]


def plan_of(clone: Clone, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert clone.run("plan", "--budget", "1000", "--always", "default", *more) == 0
    return capsys.readouterr().out


def test_the_plan_says_which_why_and_what_is_left_out(clone, capsys):
    out = plan_of(clone, capsys)
    assert out == (
        "Scenarios besides default, in turn, in about 1000 s:\n"
        "  one (about 900 s, a guess): it has no line\n"
        "Left out:\n"
        "  three: needs about 900 s, 100 s of the budget were left; it has no line\n"
        "  two: needs about 900 s, 100 s of the budget were left; it has no line\n"
    )


def test_scenarios_can_be_chosen_by_hand(clone, capsys):
    out = plan_of(clone, capsys, "--only", "two default one two")
    taken, left = out.split("Left out:\n")
    assert re.findall(r"^  (\w+)", taken, re.MULTILINE) == ["two", "one"], "default runs anyway"
    assert left == "  three: not in SCENARIOS\n"
    assert "  none\n" in plan_of(clone, capsys, "--only", "")
    with pytest.raises(RigError, match="no scenario on, tow to choose") as caught:
        clone.run("plan", "--budget", "1", "--only", "on tow one")
    assert "one, three, two" in caught.value.evidence and "SCENARIOS" in caught.value.remedy


MAKEFILE = (
    "molecule-one:\n\t@{proofs} --root . run $@ -- sh -c 'echo running $@; exit 1'\n"
    "molecule-three molecule-two:\n\t@{proofs} --root . run $@ -- sleep {sleep}\n"
)


@pytest.mark.parametrize(("left", "taken"), [(-5, False), (1700, False), (1900, True)])
def test_nothing_is_begun_that_may_not_end_before_the_whole_run_has_to(clone, left, taken):
    done = take(clone, 1000, "--until", str(time.time() + left))
    assert ("running molecule-one" in done.stdout) is taken, done.stdout
    assert taken or "one: may need 1800 s" in done.stdout


def test_a_measured_time_is_without_the_images_that_may_have_to_be_built(clone):
    for name in ("one", "two", "three"):
        clone.line("molecule-" + name, clone.head(), seconds=100)
    clone.write("plugins/module.py", "changed")
    clone.commit()
    done = take(clone, 1000, "--until", str(time.time() + 390))
    assert "running" not in done.stdout and "one: may need 400 s" in done.stdout


def take(clone: Clone, budget: int, *more: str, sleep: float = 0) -> subprocess.CompletedProcess[str]:
    """Take the turns with a Makefile whose scenarios are nearly nothing; the first fails."""
    proofs = f"{sys.executable} {REPOSITORY / 'tools/proofs'}"
    clone.write("Makefile", MAKEFILE.format(proofs=proofs, sleep=sleep))
    clone.commit()
    return subprocess.run(
        [*proofs.split(), "--root", str(clone.root), "take", "--budget", str(budget), "--always", "default", *more],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_scenario_that_fails_fails_its_run_and_keeps_no_other_from_its_turn(clone):
    done = take(clone, 3000)
    assert done.returncode == 1
    results = re.findall(r"^  (\w+) (FAILED|passed) after \d s; it has no line$", done.stdout, re.MULTILINE)
    assert results == [("one", "FAILED"), ("three", "passed"), ("two", "passed")]
    assert [clone.state(name) for name in ("one", "two", "three")] == ["failed", "proven", "proven"]
    end = done.stdout[done.stdout.index("To be committed") :]
    assert [str(line) in end for line in table.read(clone.root).values()] == [True] * 3
    clone.commit()
    done = take(clone, 3000, "--only", "two")
    assert done.returncode == 0 and "running molecule-one" not in done.stdout
    end = done.stdout[done.stdout.index("To be committed") :]
    assert "molecule-two" in end and "molecule-one" not in end, "only what is in no commit"


def test_guesses_that_were_too_low_do_not_use_up_the_others_time(clone):
    for name, ended in (("two", "2026-01-01 00:00"), ("three", "2026-01-02 00:00")):
        clone.line("molecule-" + name, clone.head(), ended, seconds=1)
    clone.line("molecule-one", clone.head(), "2026-01-03 00:00", seconds=1)
    done = take(clone, 2, sleep=2)
    assert done.returncode == 0
    assert re.search(r"^  two passed", done.stdout, re.MULTILINE)
    assert re.search(r"^  three: needs about 1 s, \d s of 2 s were gone already", done.stdout, re.MULTILINE)
    assert "three passed" not in done.stdout


def test_an_interrupted_turn_is_the_last(clone):
    clone.line("molecule-one", clone.head(), "2026-01-03 00:00")
    proofs = [sys.executable, str(REPOSITORY / "tools/proofs"), "--root", str(clone.root)]
    clone.write(
        "Makefile",
        ".PHONY: molecule-three molecule-two\nmolecule-three molecule-two:\n"
        f"\t@{' '.join(proofs)} run $@ -- sh -c 'touch $@; exec sleep 30'\n",
    )
    clone.commit()
    process = subprocess.Popen(
        [*proofs, "take", "--budget", "3000", "--always", "default"], stdout=subprocess.PIPE, text=True
    )
    while not (clone.root / "molecule-three").exists() and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert not (clone.root / "molecule-two").exists() and list(table.read(clone.root)) == ["molecule-one"]
