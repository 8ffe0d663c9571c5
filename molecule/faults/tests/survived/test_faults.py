# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever ends a run half-way, and wherever: the host can be reached, and the same playbook again finishes the work.

Then it is as after a run that nothing disturbed, the record of what was there before included; after a power cut, which
the kernel's state does not survive, it is as before all once everything is taken back.
"""
from __future__ import annotations

import shlex

import pytest
from faults import HOST, arm, disarm, in_the_middle, interrupted, points, reachable, run, snapshot, state
from live import REPOSITORY, RUN, boot_id, changes_since_baseline, differences, on, rig

FOUND = points()
COURSES = FOUND["courses"]
# The playbook of each course, and the snapshot from which it starts.
PLAYBOOK = {"build": "deploy", "bind": "deploy", "rollback": "rollback"}
FROM = {"build": "fresh", "bind": "built", "rollback": "deployed"}


def steps(*kinds: str) -> list:
    """The steps of all courses as parameters, or those of some kinds."""
    return [pytest.param(course, number, id=f"{course}: {number} {step}")
            for course in COURSES for number, step in in_the_middle(COURSES[course]["steps"])
            if not kinds or step.startswith(kinds)]


def tasks() -> list:
    """Every task that reaches the host."""
    return [pytest.param(course, task, id=f"{course}: {task}")
            for course in COURSES for task in COURSES[course]["tasks"]]


def begin(course: str) -> str:
    """Go back to where a course starts; return its playbook."""
    snapshot("load", FROM[course])
    return PLAYBOOK[course]


def finish(name: str, *, rebooted: bool = False) -> None:
    """The same playbook again does it, and leaves nothing behind that it should not."""
    done = run(name)
    assert done.returncode == 0, done.stdout
    if name == "deploy":
        assert "OK: 2 devices" in on(HOST, "noiommu-verify")
        if not rebooted:
            assert differences(FOUND["deployed"], state()) == []
            return
        done = run("rollback")
        assert done.returncode == 0, done.stdout
    assert changes_since_baseline(HOST) == []


@pytest.mark.parametrize(("course", "number"), steps())
def test_the_module_on_the_host_is_killed(course, number):
    name = begin(course)
    with reachable():
        arm(f"kill {number}")
        done = run(name, armed=True)
        assert done.returncode != 0, done.stdout
        assert len(disarm()) == number
        finish(name)


@pytest.mark.parametrize(("course", "number"), steps("run dkms", "run modprobe"))
def test_the_module_is_killed_while_a_command_of_it_runs(course, number):
    """The command goes on, and the next run meets it."""
    name = begin(course)
    with reachable():
        arm(f"orphan {number}")
        done = run(name, armed=True)
        assert done.returncode != 0, done.stdout
        disarm()
        finish(name)


@pytest.mark.parametrize(("course", "task"), tasks())
def test_ansible_is_killed(course, task):
    name = begin(course)
    with reachable():
        done = interrupted(name, task)
        assert done.returncode == -9, done.stdout
        finish(name)


@pytest.mark.parametrize(("course", "number"), steps("link", "rename", "write /sys", "remove"))
def test_the_power_is_cut(course, number):
    name = begin(course)
    before = boot_id(HOST)
    arm(f"cut {number}")
    done = run(name, armed=True)
    assert done.returncode != 0, done.stdout
    assert boot_id(HOST) != before
    finish(name, rebooted=True)


@pytest.mark.parametrize(("course", "number"), steps("mkdir", "link", "rename", "run dkms", "run group", "run user"))
def test_the_disk_is_full(course, number):
    name = begin(course)
    with reachable():
        arm(f"fill {number}")
        done = run(name, armed=True)
        assert done.returncode == 0 or "No space left" in done.stdout, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        disarm()
        on(HOST, "rm -f /var/filler")
        finish(name)


@pytest.mark.parametrize(("course", "task"), tasks()[1::3])
def test_the_management_link_is_down_for_a_while(course, task):
    """The run waits, or ends, as ssh sees it; nobody repairs anything by hand."""
    name = begin(course)
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
