# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the comparison of files does not show."""

from __future__ import annotations

from live import on


def test_the_program_has_no_capabilities_and_the_memory_is_roots():
    assert on("switch", "getcap /usr/bin/dpdk-testpmd") == ""
    assert on("switch", "stat -c %U:%G:%a /dev/hugepages").strip() == "root:root:755"
