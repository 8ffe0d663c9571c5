# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A browser needs a page on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.action.fleet_report import read_parts
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.fleet import render_page
from ansible_collections.baremetal.noiommu.tests.report import fleet


@pytest.fixture
def page(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Write the page of a fleet and return its address."""

    def write(hosts: dict[str, Any]) -> str:
        path = tmp_path / "report.html"
        path.write_text(render_page(fleet.report(hosts), read_parts()), encoding="utf-8")
        return path.as_uri()

    return write
