# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where no reboot is allowed, it is reported, the host is left otherwise as it is, and a rollback leaves no trace."""

from __future__ import annotations

import pytest
from live import boot_id, changes_since_baseline, connect, on, playbook

FRAGMENT = "/etc/default/grub.d/zz-noiommu-iommu.cfg"


@pytest.fixture(scope="module")
def deployed():
    booted = boot_id("dark")
    done = playbook("deploy", "dark", noiommu_reboot_ok=False)
    assert boot_id("dark") == booted
    return done


def test_it_was_off_before():
    host = connect("dark")
    assert host.run("ls /sys/class/iommu").stdout == "" and host.file("/sys/firmware/acpi/tables/DMAR").exists


def test_the_reboot_is_reported_as_required(deployed):
    assert deployed.returncode == 0, deployed.stdout
    assert "dark has to be rebooted: the IOMMU is turned on by intel_iommu=on" in deployed.stdout
    assert "REBOOT REQUIRED" in deployed.stdout


def test_nothing_else_was_done(deployed):
    changed = {path.partition(":")[0] for path in changes_since_baseline("dark")}
    ours = {path for path in changed if not path.startswith("files//boot/grub/")}
    assert ours == {
        f"files/{FRAGMENT}",
        "files//var/lib/noiommu",
        "files//var/lib/noiommu/cmdline.json",
        *({"files//etc/default/grub.d"} & changed),
    }


def test_the_next_boot_has_the_parameter_and_not_the_one_against_it(deployed):
    lines = on("dark", "grep -E '^\\s*linux\\s' /boot/grub/grub.cfg").splitlines()
    assert "intel_iommu=on" in lines[0].split()
    assert not any("intel_iommu=off" in line for line in lines)
    assert "console=ttyS0 loglevel=5" in lines[0], "the flags of others are all there"


def test_verify_says_what_is_missing(deployed):
    done = playbook("verify", "dark", noiommu_reboot_ok=False)
    assert done.returncode != 0 and "drifted: boot parameters: a reboot is needed" in done.stdout


def test_the_rollback_of_a_partial_deploy_leaves_no_trace(deployed):
    done = playbook("rollback", "dark")
    assert done.returncode == 0, done.stdout
    assert changes_since_baseline("dark") == []
