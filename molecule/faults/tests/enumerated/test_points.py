# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One whole deploy and one whole rollback, in which every step that changes the host is counted."""
from __future__ import annotations

import json

from faults import HOST, POINTS, counted, in_the_middle, interrupted, snapshot, state
from live import changes_since_baseline, recorded_changes


def test_every_step_of_a_deploy_and_a_rollback_is_known(capsys):
    snapshot("save", "fresh")
    whole = counted("deploy")
    assert recorded_changes("check-converge-1") == recorded_changes("run-deploy-1")
    deployed = state()
    snapshot("save", "deployed")
    rollback = counted("rollback")
    assert changes_since_baseline(HOST) == []

    # Building the module is most of a deploy: what comes after that begins where it is built already.
    snapshot("load", "fresh")
    built = next(index for index, task in enumerate(whole["tasks"]) if "kmod :" in task) + 1
    assert interrupted("deploy", whole["tasks"][built]).returncode == -9
    snapshot("save", "built")
    rest = counted("deploy")
    before = len(whole["steps"]) - len(rest["steps"])
    # Devices are written to at the same time: in which order is chance.
    assert sorted(whole["steps"][before:]) == sorted(rest["steps"])

    courses = {
        "build": {"steps": whole["steps"][:before], "tasks": whole["tasks"][:built]},
        "bind": {"steps": rest["steps"], "tasks": whole["tasks"][built:]},
        "rollback": rollback,
    }
    POINTS.write_text(json.dumps({"courses": courses, "deployed": deployed}, indent=1), encoding="utf-8")
    with capsys.disabled():
        for name, course in courses.items():
            print(f"\n{name}: {len(course['tasks'])} tasks, {len(course['steps'])} steps,"
                  f" {len(in_the_middle(course['steps']))} of different kinds")
    assert min(len(course["steps"]) for course in courses.values()) > 20
