# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One playbook took everything back: drop-ins, file capabilities, owners and modes included."""
from __future__ import annotations

from live import changes_since_baseline, on


def test_the_host_is_as_it_was_at_first():
    assert changes_since_baseline("switch") == []


def test_what_the_file_tree_does_not_show():
    assert on("switch", "getcap /usr/bin/dpdk-testpmd") == ""
    assert on("switch", "stat -c %U:%G:%a /dev/hugepages").strip() == "root:root:755"
