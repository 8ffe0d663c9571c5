# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run in check mode had announced is what the real run did."""

from __future__ import annotations

from live import recorded_changes


def test_check_mode_had_predicted_exactly_this():
    assert recorded_changes("check-converge-1") == recorded_changes("run-converge-1")
