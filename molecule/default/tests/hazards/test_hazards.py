# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong on a converged host, and what the playbooks then say and do."""

from __future__ import annotations

from live import broken, declaration, differences, host_state, on, playbook, refused, remote_executions

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


def test_a_misspelt_or_emptied_variable_gives_nothing_back(tmp_path):
    """The first is refused before the host is asked anything, the second by the host's verdict."""
    misspelt = {
        "noiommu_devices": "noiommu_device",
        "noiommu_hugepages": "noiommu_hugepage",
        "noiommu_access": "noiommu_acces",
    }
    renamed = declaration(
        tmp_path / "renamed.yml", lambda declared: {misspelt.get(name, name): value for name, value in declared.items()}
    )
    emptied = declaration(
        tmp_path / "emptied.yml", lambda declared: {**declared, "noiommu_devices": None, "noiommu_access": None}
    )
    before, since = host_state("alpha"), on("alpha", "date +%s").strip()
    said = refused("alpha", "unknown_variable", *(f"Write {name}." for name in misspelt), inventory=renamed)
    assert all(f"{name} is not a variable" in said for name in misspelt.values()), said
    assert remote_executions("alpha", since) == 0
    refused("alpha", "undeclared", "noiommu_devices: []", "noiommu_access: {}", NIC, inventory=emptied)
    assert differences(before, host_state("alpha")) == []


def test_a_device_that_disappears_and_comes_back():
    """Without it a deploy fails; found again, it is bound without Ansible."""
    with broken("alpha", f"echo 1 > /sys/bus/pci/devices/{NIC}/remove", "echo 1 > /sys/bus/pci/rescan"):
        done = playbook("deploy", "alpha")
        assert done.returncode != 0 and NIC in done.stdout, done.stdout
        assert "disappeared" in done.stdout or "gone" in done.stdout, done.stdout
    on("alpha", f"until [ -e /sys/bus/pci/drivers/vfio-pci/{NIC} ]; do sleep 1; done", timeout=120)


def test_drift_is_found_and_mended():
    """The device is given to the host's driver by hand: the state has drifted."""
    on(
        "alpha",
        f"echo {NIC} > /sys/bus/pci/drivers/vfio-pci/unbind; echo > /sys/bus/pci/devices/{NIC}/driver_override;"
        f" echo {NIC} > /sys/bus/pci/drivers_probe; test ! -e /sys/bus/pci/drivers/vfio-pci/{NIC}",
    )
    done = playbook("verify", "alpha")
    assert done.returncode != 0 and "alpha: drifted: device bindings: " in done.stdout, done.stdout
    done = playbook("deploy", "alpha")
    assert done.returncode == 0 and "changed=1 " in done.stdout, done.stdout
    assert playbook("verify", "alpha").returncode == 0
