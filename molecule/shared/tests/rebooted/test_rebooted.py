# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts did reboot, and Ansible has done nothing since: what the next stage finds, they did by themselves."""

from __future__ import annotations

import pytest
from live import connect, hosts, rebooted_since_baseline, remote_executions


@pytest.mark.parametrize("name", hosts())
def test_booted_anew_and_left_alone(name):
    assert rebooted_since_baseline(name)
    assert remote_executions(name) == 0


@pytest.mark.parametrize("name", hosts())
def test_the_boot_unit_succeeded(name):
    assert connect(name).service("noiommu-bindings").is_running
