# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines are what the scenario says, before anything is done to them."""

from __future__ import annotations

import pytest
from live import connect, hosts


@pytest.mark.parametrize("name", hosts())
def test_open_vswitch_runs_as_the_distribution_ships_it(name):
    assert connect(name).service("ovs-vswitchd").is_running


@pytest.mark.parametrize("name", hosts())
def test_everybody_may_run_the_program(name):
    assert connect(name).file("/usr/bin/dpdk-testpmd").mode == 0o755
