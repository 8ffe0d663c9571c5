# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state before anything is done, to compare with and to come back to."""

from __future__ import annotations

import pytest
from live import connect, hosts, save_baseline


@pytest.mark.parametrize("name", hosts())
def test_nothing_of_ours_is_there(name):
    host = connect(name)
    assert host.file("/proc/sys/kernel/tainted").content_string.strip() == "0"
    assert not host.file("/sys/module/noiommu").exists
    assert not host.file("/var/lib/noiommu").exists


@pytest.mark.parametrize("name", hosts())
def test_the_state_to_come_back_to_is_kept(name):
    save_baseline(name)
