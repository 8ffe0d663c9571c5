# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Running what proves something, and recording it: nothing is run but git and small commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from gate import child, recording, table
from rig import accel
from rig.common import REPOSITORY, RigError
from rig.spec import Machine


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
