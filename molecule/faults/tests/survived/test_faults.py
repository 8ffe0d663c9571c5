# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever ends a run half-way, and wherever: the host can be reached, and the same playbook again finishes the work.

Then it is as after a run that nothing disturbed, the record of what was there before included; after a power cut, which
the kernel's state does not survive, it is as before all once everything is taken back.
"""

from __future__ import annotations

import os
import shlex

import pytest
from faults import (
    MACHINES,
    arm,
    disarm,
    in_the_middle,
    interrupted,
    one_of_each,
    points,
    reachable,
    restarted,
    run,
    snapshot,
    state,
)
from live import REPOSITORY, RUN, boot_id, changes_since_baseline, differences, on, rig

COURSES = points(MACHINES[0])["courses"]
# The playbook of each course, and the snapshot from which it starts.
PLAYBOOK = {"build": "deploy", "bind": "deploy", "rollback": "rollback"}
FROM = {"build": "fresh", "bind": "built", "rollback": "deployed"}


def steps(*kinds: str) -> list:
    """Every step of all courses, as parameters, or of each course one of each of these kinds."""
    found = []
    for course, what in COURSES.items():
        middle = in_the_middle(what["steps"])
        found += [
            pytest.param(course, number, id=f"{course}: {number} {step}")
            for number, step in (one_of_each(middle, kinds) if kinds else middle)
        ]
    return found


def tasks() -> list:
    """Every task before which something was changed, by one that reaches the host."""
    return [
        pytest.param(course, task, id=f"{course}: {task}")
        for course, what in COURSES.items()
        for task in what["tasks"][1:]
    ]


@pytest.fixture(scope="session")
def machine() -> str:
    """The machine of this process of pytest-xdist."""
    return MACHINES[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])]


def begin(machine: str, course: str) -> str:
    """Go back to where a course starts; return its playbook."""
    snapshot(machine, "load", FROM[course])
    return PLAYBOOK[course]


def finish(machine: str, name: str, *, rebooted: bool = False) -> None:
    """The same playbook again does it, and leaves nothing behind that it should not."""
    done = run(machine, name)
    assert done.returncode == 0, done.stdout
    if name == "deploy":
        assert "OK: 2 devices" in on(machine, "noiommu-verify")
        if not rebooted:
            assert differences(points(machine)["deployed"], state(machine)) == []
            return
        done = run(machine, "rollback")
        assert done.returncode == 0, done.stdout
    assert changes_since_baseline(machine) == []


@pytest.mark.parametrize(("course", "number"), steps())
def test_the_module_on_the_host_is_killed(machine, course, number):
    name = begin(machine, course)
    with reachable(machine):
        arm(machine, f"kill {number}")
        done = run(machine, name, armed=True)
        assert done.returncode != 0, done.stdout
        assert len(disarm(machine)) == number
        finish(machine, name)


@pytest.mark.parametrize(("course", "number"), steps("run dkms build", "run dkms install", "run modprobe"))
def test_the_module_is_killed_while_a_command_of_it_runs(machine, course, number):
    """The command goes on, and the next run meets it."""
    name = begin(machine, course)
    with reachable(machine):
        arm(machine, f"orphan {number}")
        done = run(machine, name, armed=True)
        assert done.returncode != 0, done.stdout
        disarm(machine)
        finish(machine, name)


@pytest.mark.parametrize(("course", "task"), tasks())
def test_ansible_is_killed(machine, course, task):
    name = begin(machine, course)
    with reachable(machine):
        done = interrupted(machine, name, task)
        assert done.returncode == -9, done.stdout
        finish(machine, name)


@pytest.mark.parametrize(("course", "number"), steps("link", "rename", "write /sys", "remove"))
def test_the_power_is_cut(machine, course, number):
    name = begin(machine, course)
    before = boot_id(machine)
    arm(machine, f"cut {number}")
    done = run(machine, name, armed=True)
    assert done.returncode != 0, done.stdout
    assert restarted(machine, before)
    finish(machine, name, rebooted=True)


@pytest.mark.parametrize(("course", "number"), steps("mkdir", "link", "rename", "run dkms build", "run groupadd"))
def test_the_disk_is_full(machine, course, number):
    name = begin(machine, course)
    with reachable(machine):
        arm(machine, f"fill {number}")
        done = run(machine, name, armed=True)
        assert done.returncode == 0 or "No space left" in done.stdout, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        disarm(machine)
        on(machine, "rm -f /var/filler")
        finish(machine, name)


@pytest.mark.parametrize(("course", "task"), tasks()[::4])
def test_the_management_link_is_down_for_a_while(machine, course, task):
    """The run waits, or ends, as ssh sees it; nobody repairs anything by hand."""
    name = begin(machine, course)
    link = shlex.join([str(REPOSITORY / "tools" / "vm"), "link", "--run", str(RUN), machine])
    interrupted(machine, name, task, f"sh -c '{link} down; (sleep 20; {link} up) >/dev/null 2>&1 &'")
    rig("link", machine, "up")
    finish(machine, name)


def test_the_lock_of_apt_is_held(machine):
    """Who needs a package then is told, after a time, which it is and what apt said."""
    snapshot(machine, "load", "fresh")
    on(machine, "dpkg --purge --force-depends dkms")
    holder = (
        "import fcntl, time; lock = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(lock, fcntl.LOCK_EX);"
        " time.sleep(3600)"
    )
    on(machine, f"systemd-run --quiet --unit=holder /usr/bin/python3 -c {shlex.quote(holder)}")
    done = run(machine, "deploy")
    assert done.returncode != 0 and "dkms could not be installed" in done.stdout, done.stdout
    assert "lock" in done.stdout, done.stdout
    on(machine, "systemctl stop holder")
    done = run(machine, "deploy")
    assert done.returncode == 0, done.stdout
    assert "OK: 2 devices" in on(machine, "noiommu-verify")
