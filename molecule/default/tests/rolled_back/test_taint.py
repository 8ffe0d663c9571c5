# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Only the taint waits for a reboot, and the rollback says so."""

from __future__ import annotations

from live import connect, playbook


def test_the_taint_that_remains_is_reported():
    assert int(connect("alpha").file("/proc/sys/kernel/tainted").content_string) != 0
    done = playbook("rollback", "alpha")
    assert done.returncode == 0 and "changed=0" in done.stdout, done.stdout
    assert "stays tainted until it is rebooted" in done.stdout
