# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run in check mode announced changes and made none."""

from __future__ import annotations

import pytest
from live import changes_since_baseline, hosts, recorded_changes


def test_check_mode_announced_changes():
    assert {host for host, _task in recorded_changes("check-converge-1")} == set(hosts())


@pytest.mark.parametrize("name", hosts())
def test_check_mode_changed_nothing(name):
    assert changes_since_baseline(name) == []
