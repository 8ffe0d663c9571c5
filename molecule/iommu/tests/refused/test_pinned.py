# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No insecure backend beside a working IOMMU, whatever the inventory asks for, and nothing changes."""

from __future__ import annotations

import pytest
from live import changes_since_baseline, refused

HOST = "secure"


@pytest.mark.parametrize("backend", ("dkms", "builtin"))
def test_insecure_backends(backend):
    refused(HOST, "iommu_active", f"the insecure backend {backend} is refused", "dmar0", noiommu_backend=backend)
    assert changes_since_baseline(HOST) == []
