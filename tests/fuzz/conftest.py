# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says how many mutants were tried, all workers together."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the sum."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, ())]
    counts = [value for report in reports for key, value in report.user_properties if key == "mutants"]
    terminalreporter.write_line("%d mutants of the samples of %d parsers" % (sum(counts), len(counts)))
