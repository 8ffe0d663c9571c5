# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run that takes one host back after a deploy that got halfway, and leaves the other alone."""

from __future__ import annotations

from live import changes_since_baseline, on, playbook, recorded_changes


def test_a_deploy_that_fails_halfway():
    done = playbook("deploy", "spare", noiommu_hugepages=[{"size": "3M", "count": 1}])
    assert done.returncode != 0 and "3M" in done.stdout and "Traceback" not in done.stdout, done.stdout
    assert on("spare", "find /lib/modules -name 'noiommu.ko*'"), "the kernel module is there already"
    assert changes_since_baseline("spare")


def test_check_mode_of_the_mixed_run_changes_nothing():
    before = changes_since_baseline("spare")
    done = playbook("deploy", "switch,spare", check=True, spare_state="absent")
    assert done.returncode == 0, done.stdout
    assert changes_since_baseline("spare") == before


def test_the_mixed_run():
    done = playbook("deploy", "switch,spare", spare_state="absent")
    assert done.returncode == 0, done.stdout
    assert recorded_changes("run-deploy-2") == recorded_changes("check-deploy-1")
    assert {host for host, _task in recorded_changes("run-deploy-2")} == {"spare"}
    assert "everything was rolled back" in done.stdout


def test_the_host_is_as_it_was_at_first():
    assert changes_since_baseline("spare") == []
