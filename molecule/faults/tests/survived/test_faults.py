# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever ends a run half-way, and wherever: the host can be reached, and the same playbook again finishes the work.

What a deploy finished is taken back after it, so that the record of what was there before is known to have survived.
"""
from __future__ import annotations

import shlex

import pytest
from faults import HOST, arm, disarm, files, interrupted, points, reachable, run, snapshot
from live import REPOSITORY, RUN, boot_id, changes_since_baseline, on, rig

POINTS = points()
FROM = {"deploy": "fresh", "rollback": "deployed"}


def steps(*kinds: str) -> list:
    """Every step of both playbooks as parameters, or those of some kinds."""
    return [pytest.param(name, number, id=f"{name}: {number} {step}")
            for name in FROM for number, step in enumerate(POINTS[name]["steps"], 1)
            if not kinds or step.startswith(kinds)]


def tasks() -> list:
    """Every task that reaches the host, of both playbooks."""
    return [pytest.param(name, task, id=f"{name}: {task}") for name in FROM for task in POINTS[name]["tasks"]]


def finish(name: str) -> None:
    """The same playbook again does it, leaves no scrap behind, and everything can be taken back."""
    done = run(name)
    assert done.returncode == 0, done.stdout
    if name == "deploy":
        assert "OK: 2 devices" in on(HOST, "noiommu-verify")
        assert files() == POINTS["files"]
        done = run("rollback")
        assert done.returncode == 0, done.stdout
    assert changes_since_baseline(HOST) == []


@pytest.mark.parametrize(("name", "number"), steps())
def test_the_module_on_the_host_is_killed(name, number):
    snapshot("load", FROM[name])
    with reachable():
        arm(f"kill {number}")
        done = run(name, armed=True)
        assert done.returncode != 0, done.stdout
        assert len(disarm()) == number
        finish(name)


@pytest.mark.parametrize(("name", "number"), steps("run dkms", "run systemctl", "run modprobe"))
def test_the_module_is_killed_while_a_command_of_it_runs(name, number):
    """The command goes on, and the next run meets it."""
    snapshot("load", FROM[name])
    with reachable():
        arm(f"orphan {number}")
        done = run(name, armed=True)
        assert done.returncode != 0, done.stdout
        disarm()
        finish(name)


@pytest.mark.parametrize(("name", "task"), tasks())
def test_ansible_is_killed(name, task):
    snapshot("load", FROM[name])
    with reachable():
        done = interrupted(name, task)
        assert done.returncode == -9, done.stdout
        finish(name)


@pytest.mark.parametrize(("name", "number"), steps("link", "rename"))
def test_the_power_is_cut(name, number):
    snapshot("load", FROM[name])
    before = boot_id(HOST)
    arm(f"cut {number}")
    done = run(name, armed=True)
    assert done.returncode != 0, done.stdout
    assert boot_id(HOST) != before
    finish(name)


@pytest.mark.parametrize(("name", "number"), steps("write /etc", "mkdir"))
def test_the_disk_is_full(name, number):
    snapshot("load", FROM[name])
    with reachable():
        arm(f"fill {number}")
        done = run(name, armed=True)
        assert done.returncode == 0 or "No space left" in done.stdout, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        disarm()
        on(HOST, "rm -f /var/filler")
        finish(name)


@pytest.mark.parametrize(("name", "task"), tasks()[1::3])
def test_the_management_link_is_down_for_a_while(name, task):
    """The run waits, or ends, as ssh sees it; nobody repairs anything by hand."""
    snapshot("load", FROM[name])
    link = shlex.join([str(REPOSITORY / "tools" / "vm"), "link", "--run", str(RUN), HOST])
    interrupted(name, task, f"sh -c '{link} down; (sleep 20; {link} up) >/dev/null 2>&1 &'")
    rig("link", HOST, "up")
    finish(name)


def test_the_lock_of_apt_is_held():
    """Who needs a package then is told, after a time, which it is and what apt said."""
    snapshot("load", "fresh")
    on(HOST, "dpkg --purge --force-depends dkms")
    holder = ("import fcntl, time; lock = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(lock, fcntl.LOCK_EX);"
              " time.sleep(3600)")
    on(HOST, f"systemd-run --quiet --unit=holder /usr/bin/python3 -c {shlex.quote(holder)}")
    done = run("deploy")
    assert done.returncode != 0 and "dkms could not be installed" in done.stdout, done.stdout
    assert "lock" in done.stdout, done.stdout
    on(HOST, "systemctl stop holder")
    done = run("deploy")
    assert done.returncode == 0, done.stdout
    assert "OK: 2 devices" in on(HOST, "noiommu-verify")


def test_the_count(request, capsys):
    """Last: says how many points there were, whatever became of them."""
    with capsys.disabled():
        print(f"\n{len(request.session.items) - 1} faults were tried")
    assert len(request.session.items) > 40
