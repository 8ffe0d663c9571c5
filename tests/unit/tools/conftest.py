# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The tools are programs beside the collection, not part of it: put them on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from ansible_collections.baremetal.noiommu.tests.unit.support.gate_clone import Clone
from gate import rules


@pytest.fixture(name="clone")
def _clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.setenv("NOIOMMU_ACCEL", "tcg")
    monkeypatch.setattr(rules, "OTHERS", {"kmod-fuzz": rules.KMOD_TEST})
    return Clone(tmp_path / "clone")
