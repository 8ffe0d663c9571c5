# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One playbook took everything back."""

from __future__ import annotations

import pytest
from live import changes_since_baseline, hosts


@pytest.mark.parametrize("name", hosts())
def test_the_host_is_as_it_was_at_first(name):
    assert changes_since_baseline(name) == []
