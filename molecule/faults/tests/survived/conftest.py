# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says at the end how many faults of each kind were tried, and from how many the next run recovered."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter):
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call" and "test_faults.py::" in report.nodeid
    ]
    kinds: dict[str, list] = {}
    for report in reports:
        kinds.setdefault(report.nodeid.partition("::")[2].partition("[")[0], []).append(report)
    terminalreporter.section("faults")
    for kind, tried in sorted(kinds.items()):
        terminalreporter.line(
            f"{kind}: {len(tried)} tried, {sum(report.passed for report in tried)} recovered from,"
            f" {sum(report.duration for report in tried) / len(tried):.0f} s each"
        )
    terminalreporter.line(
        f"{len(reports)} faults were tried, {sum(report.passed for report in reports)} recovered from"
    )
