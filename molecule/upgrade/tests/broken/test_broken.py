# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host has booted the kernel that there is no module for. It is reachable, and says what is wrong."""

from __future__ import annotations

from live import nics, on, playbook
from upgrading import HOST, OVERRIDE, newest

CAUSE = "noiommu.c:1:1: error: broken on purpose"


def test_it_runs_the_newer_kernel_and_can_be_reached():
    assert on(HOST, "uname -r").strip() == newest()


def test_the_devices_are_unbound_and_the_boot_tool_says_why():
    for nic in nics(HOST):
        assert on(HOST, f"readlink /sys/bus/pci/devices/{nic}/driver || true").strip().rpartition("/")[2] != "vfio-pci"
    log = on(HOST, "journalctl -b -q --no-pager -u noiommu-bindings")
    assert "no device was bound" in log and "noiommu" in log, log


def test_verify_shows_it_with_the_cause():
    done = playbook("verify", HOST)
    assert done.returncode != 0 and "drifted: kernel module" in done.stdout, done.stdout
    assert CAUSE in done.stdout, done.stdout


def test_a_deploy_fails_with_the_cause_now_that_the_kernel_is_needed():
    done = playbook("deploy", HOST)
    assert done.returncode != 0 and "build_failed" in done.stdout and CAUSE in done.stdout, done.stdout


def test_once_the_cause_is_gone_the_distributions_own_hooks_build_it():
    on(HOST, "rm " + OVERRIDE.format(kernel=newest()))
    said = on(HOST, "dpkg --configure -a 2>&1", timeout=1800)
    assert "noiommu" in said, said
    on(HOST, "modinfo noiommu")
