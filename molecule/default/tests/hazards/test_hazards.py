# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong on a converged host, and what the playbooks then say and do."""
from __future__ import annotations

from live import broken, on, playbook, remote_executions

NIC = "0000:00:10.0"
BUDGET = 10  # remote module executions on a converged host, all roles together


def test_verify_finds_nothing_on_a_converged_host():
    done = playbook("verify", "alpha,secure")
    assert done.returncode == 0, done.stdout


def test_a_converged_run_stays_within_the_budget_of_remote_executions():
    since = on("alpha", "date +%s").strip()
    done = playbook("deploy", "alpha")
    assert done.returncode == 0 and "changed=0" in done.stdout, done.stdout
    assert 0 < remote_executions("alpha", since) <= BUDGET


def test_a_device_that_disappeared():
    with broken("alpha", f"echo 1 > /sys/bus/pci/devices/{NIC}/remove", "echo 1 > /sys/bus/pci/rescan"):
        done = playbook("deploy", "alpha")
        assert done.returncode != 0 and NIC in done.stdout, done.stdout
        assert "disappeared" in done.stdout or "gone" in done.stdout, done.stdout


def test_drift_is_found_and_mended():
    """The device above came back without a binding: the state has drifted."""
    done = playbook("verify", "alpha")
    assert done.returncode != 0 and "alpha: drifted: device bindings: " in done.stdout, done.stdout
    done = playbook("deploy", "alpha")
    assert done.returncode == 0 and "changed=1 " in done.stdout, done.stdout
    assert playbook("verify", "alpha").returncode == 0
