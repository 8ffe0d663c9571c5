# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Proofs and turns, on clones with a history of their own; nothing is run but git, make and small commands."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gate import child, cli, recording, rules, table, turns, verdicts
from gate.history import History
from rig import accel
from rig.common import REPOSITORY, RigError
from rig.spec import Machine

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


@pytest.fixture(name="clone")
def _clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.setenv("NOIOMMU_ACCEL", "tcg")
    monkeypatch.setattr(rules, "OTHERS", {"kmod-fuzz": rules.KMOD_TEST})
    return Clone(tmp_path / "clone")


# --- the rule of what rests on what ---


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


# --- the table ---


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


# --- the verdicts ---


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


# --- the lint ---


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


# --- recording ---


def test_a_run_of_a_commit_is_recorded_with_its_result(clone, capsys):
    head = clone.head()
    assert clone.run("run", "molecule-one", "--", "sh", "-c", "sleep 1.1") == 0
    assert clone.run("run", "molecule-two", "--", "sh", "-c", "exit 3") == 3, "the table itself may differ"
    lines = table.read(clone.root)
    assert lines["molecule-one"].passed and 1 <= lines["molecule-one"].seconds <= 30
    assert not lines["molecule-two"].passed
    assert {line.commit for line in lines.values()} == {head[:12]}
    out = capsys.readouterr().out
    assert all(str(line) in out for line in lines.values())
    assert re.fullmatch(r"\d+ cores?, QEMU TCG", lines["molecule-one"].machine)
    assert [clone.state(name) for name in ("one", "two")] == ["proven", "failed"]
    assert clone.run("run", "molecule-two", "--", "true") == 0
    assert clone.state("two") == "proven"


def test_a_run_of_no_commit_is_not_recorded_and_does_not_fail(clone, capsys):
    clone.line("molecule-one", "a" * 12)
    clone.write("plugins/module.py", "2")
    for command, code in (
        (("run", "molecule-one", "--", "true"), 0),
        (("run", "molecule-one", "--", "false"), 1),
        (("record", "molecule-one", "--seconds", "5"), 0),
    ):
        assert clone.run(*command) == code
        assert "no line of molecule-one: what it rests on is in no commit: plugins/module.py" in capsys.readouterr().out
    assert table.read(clone.root)["molecule-one"].commit == "a" * 12
    assert clone.run("run", "kmod-fuzz", "--", "true") == 0
    assert "kmod-fuzz" in table.read(clone.root), "which does not rest on plugins"


def test_a_run_during_which_the_files_change_is_not_recorded(clone, capsys):
    git = f"git -C {clone.root} -c user.name=x -c user.email=x"
    change = f"echo 2 >{clone.root}/plugins/module.py"
    assert clone.run("run", "molecule-one", "--", "sh", "-c", f"{change}; {git} commit -qam x") == 0
    assert "changed while it ran" in capsys.readouterr().out
    assert clone.run("run", "molecule-one", "--", "sh", "-c", f"{git} commit -qm x --allow-empty") == 0
    assert "changed while it ran" not in capsys.readouterr().out
    assert list(table.read(clone.root)) == ["molecule-one"]
    clone.write("plugins/module.py", "3")
    clone.commit()
    assert clone.run("run", "molecule-two", "--", "sh", "-c", "echo 4 >" + str(clone.root / "plugins/module.py")) == 0
    assert "is in no commit" in capsys.readouterr().out and "molecule-two" not in table.read(clone.root)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_ends_its_command_in_order_and_is_not_recorded(clone, signum):
    here = clone.root
    script = f"trap 'kill $!; touch {here}/cleaned; exit 5' TERM HUP; sleep 30 & touch {here}/started; wait"
    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "tools/proofs"),
            "--root",
            str(clone.root),
            "run",
            "molecule-one",
            "--",
            "sh",
            "-c",
            script,
        ],
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may be deaf to it, and a shell cannot change that.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
    )
    while not (clone.root / "started").exists():
        time.sleep(0.05)
    process.send_signal(signum)
    out = process.communicate(timeout=20)[0]
    assert process.returncode == 128 + signum and "it was interrupted" in out
    assert (clone.root / "cleaned").exists() and not table.read(clone.root)


def test_a_command_that_is_not_there_and_a_name_that_is_none(clone):
    with pytest.raises(RigError, match="cannot be run") as caught:
        child.run([str(clone.root / "absent")])
    assert caught.value.evidence and caught.value.remedy
    with pytest.raises(RigError, match="nothing is proven under the name molecule-none") as caught:
        clone.run("record", "molecule-none", "--seconds", "1")
    assert "molecule-one" in caught.value.evidence and caught.value.remedy


def test_a_run_can_be_recorded_by_hand(clone):
    assert clone.run("record", "molecule-one", "--seconds", "5", "--failed") == 0
    line = table.read(clone.root)["molecule-one"]
    assert (line.passed, line.seconds, line.commit) == (False, 5, clone.head()[:12])


def test_the_machine_is_named_by_what_is_known_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(recording.os, "cpu_count", lambda: 1)
    monkeypatch.delenv("NOIOMMU_ACCEL", raising=False)
    monkeypatch.setenv("NOIOMMU_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *args: True)
    assert recording.machine() == "1 core", "KVM was not tried yet"
    monkeypatch.setattr(accel, "works", lambda image, firmware: True)
    assert accel.choose(tmp_path / "image", Machine("a")) == "kvm" and recording.machine() == "1 core, QEMU KVM"
    monkeypatch.setattr(accel, "works", lambda image, firmware: pytest.fail("tried twice"))
    assert accel.choose(tmp_path / "image", Machine("a")) == "kvm"
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert recording.machine() == "1 core, QEMU TCG"


# --- turns ---


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


def test_an_error_is_printed_and_not_raised(clone, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["proofs", "--root", str(clone.root), "record", "none", "--seconds", "1"])
    assert cli.main() == 1
    err = capsys.readouterr().err
    assert "error: nothing is proven" in err and "remedy:" in err
