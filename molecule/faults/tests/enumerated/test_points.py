# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One whole deploy and one whole rollback, in which every step that changes the host is counted."""

from __future__ import annotations

import json

import pytest
from faults import MACHINES, counted, in_the_middle, interrupted, last_run, points_file, snapshot, state
from live import changes_since_baseline, recorded_changes


@pytest.mark.parametrize("machine", MACHINES)
def test_every_step_of_a_deploy_and_a_rollback_is_known(machine):
    snapshot(machine, "save", "fresh")
    whole = counted(machine, "deploy")
    predicted = [task for host, task in recorded_changes("check-converge-1") if host == machine]
    assert predicted == sorted(entry["task"] for entry in last_run(machine, "deploy") if entry["changed"])
    deployed = state(machine)
    snapshot(machine, "save", "deployed")
    rollback = counted(machine, "rollback")
    assert changes_since_baseline(machine) == []

    # Building the module is most of a deploy: what comes after that begins where it is built already.
    snapshot(machine, "load", "fresh")
    built = next(index for index, task in enumerate(whole["tasks"]) if "kmod :" in task) + 1
    assert interrupted(machine, "deploy", whole["tasks"][built]).returncode == -9
    snapshot(machine, "save", "built")
    rest = counted(machine, "deploy")
    before = len(whole["steps"]) - len(rest["steps"])
    # Devices are written to at the same time: in which order is chance.
    assert sorted(whole["steps"][before:]) == sorted(rest["steps"])

    courses = {
        "build": {"steps": whole["steps"][:before], "tasks": whole["tasks"][:built]},
        "bind": {"steps": rest["steps"], "tasks": whole["tasks"][built:]},
        "rollback": rollback,
    }
    points_file(machine).write_text(json.dumps({"courses": courses, "deployed": deployed}, indent=1), encoding="utf-8")
    for name, course in courses.items():
        print(
            f"{name}: {len(course['tasks'])} tasks, {len(course['steps'])} steps,"
            f" {len(in_the_middle(course['steps']))} of different kinds"
        )
    assert min(len(course["steps"]) for course in courses.values()) > 20
