# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend that cannot work here is refused with the reason, and nothing changes."""

from __future__ import annotations

from live import changes_since_baseline, refused

HOST = "foxtrot"


def test_iommu_without_one():
    refused(HOST, "backend_unavailable", "needs a working hardware IOMMU", "/sys/class/iommu", noiommu_backend="iommu")
    assert changes_since_baseline(HOST) == []


def test_without_consent():
    refused(HOST, "unsafe_not_accepted", "noiommu_accept_unsafe", noiommu_accept_unsafe=False)
    assert changes_since_baseline(HOST) == []
