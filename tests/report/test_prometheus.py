# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics and alerts before Prometheus' own judge, promtool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.fleet import host_record
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.metrics import render
from ansible_collections.baremetal.noiommu.tests.report import fleet

REPOSITORY = Path(fleet.__file__).parents[2]


def promtool(*arguments: str, stdin: str | None = None) -> str:
    """Run promtool; fail with what it says if it finds anything."""
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("hosts", [fleet.realistic(), fleet.hostile()], ids=["realistic", "hostile"])
def test_metrics(hosts: dict) -> None:
    for name, registered in hosts.items():
        record = host_record(name, registered)
        # It also has advice on names, and none is wanted.
        assert promtool("check", "metrics", stdin=render(record, 1, {"host": record["name"]})) == ""


def test_alerts() -> None:
    assert "8 rules found" in promtool("check", "rules", str(REPOSITORY / "docs" / "alerts.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(REPOSITORY / "tests" / "report" / "alerts.yml"))
