# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One playbook took everything back; only the taint waits for a reboot, and says so."""
from __future__ import annotations

import pytest
from live import changes_since_baseline, connect, playbook


@pytest.mark.parametrize("name", ("alpha", "bravo", "secure"))
def test_the_host_is_as_it_was_at_first(name):
    assert changes_since_baseline(name) == []


def test_the_taint_that_remains_is_reported():
    assert int(connect("alpha").file("/proc/sys/kernel/tainted").content_string) != 0
    done = playbook("rollback", "alpha")
    assert done.returncode == 0 and "changed=0" in done.stdout, done.stdout
    assert "stays tainted until it is rebooted" in done.stdout
