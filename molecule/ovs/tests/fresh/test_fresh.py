# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines are what the scenario says, before anything is done to them."""
from __future__ import annotations

import pytest
from live import connect, save_baseline

HOSTS = ("switch", "spare")


@pytest.mark.parametrize("name", HOSTS)
def test_nothing_of_ours_is_there(name):
    host = connect(name)
    assert host.file("/proc/sys/kernel/tainted").content_string.strip() == "0"
    assert not host.file("/var/lib/noiommu").exists
    assert host.file("/usr/bin/dpdk-testpmd").mode == 0o755


@pytest.mark.parametrize("name", HOSTS)
def test_open_vswitch_runs_as_the_distribution_ships_it(name):
    assert connect(name).service("ovs-vswitchd").is_running


@pytest.mark.parametrize("name", HOSTS)
def test_the_state_to_come_back_to_is_kept(name):
    save_baseline(name)
