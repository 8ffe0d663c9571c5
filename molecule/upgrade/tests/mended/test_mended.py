# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host serves its devices on the newer kernel; everything can be taken back."""

from __future__ import annotations

from live import nics, on, playbook
from upgrading import HOST, newest


def test_it_runs_the_newer_kernel():
    assert on(HOST, "uname -r").strip() == newest()


def test_verify_finds_nothing():
    done = playbook("verify", HOST)
    assert done.returncode == 0, done.stdout


def test_everything_is_taken_back_for_both_kernels():
    done = playbook("rollback", HOST)
    assert done.returncode == 0, done.stdout
    assert on(HOST, "find / -xdev -name '*noiommu*' -not -path '/var/log/*' -not -path '/proc/*'") == ""
    for nic in nics(HOST):
        assert on(HOST, f"readlink /sys/bus/pci/devices/{nic}/driver").strip().endswith("/virtio-pci")
