# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One report of several runs in a real browser: two slices side by side, and a third one days later."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.action.fleet_report import write
from ansible_collections.baremetal.noiommu.tests.report import fleet
from ansible_collections.baremetal.noiommu.tests.report.browser import Browser
from ansible_collections.baremetal.noiommu.tests.report.test_page import NAMES, load, open_host, sort_by, tile

FIRST, LATER = "2026-03-01T12:00:00Z", "2026-03-04T15:00:00Z"
CHECKED = (
    "return Object.fromEntries([...document.querySelectorAll('#rows > tr')].map((row) => "
    "[row.querySelector('.open').textContent, row.querySelector('[data-label=Checked]').textContent]));"
)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three slices at the same time, then the last one, without the inventory of the others."""
    dest = tmp_path_factory.mktemp("report")
    hosts = fleet.realistic()
    slices = [fleet.some(hosts, number, 3) for number in range(3)]
    together = [
        threading.Thread(target=write, args=(fleet.records(one, FIRST), str(dest), FIRST)) for one in slices[:2]
    ]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    write(fleet.records(slices[2], LATER), str(dest), LATER)
    return dest


def test_all_hosts_are_in_one_report_with_the_age_of_what_is_known(merged: Path) -> None:
    hosts = fleet.realistic()
    late = set(fleet.some(hosts, 2, 3))
    with Browser() as browser:
        # A quarter of an hour after the last run.
        browser.set_clock("2026-03-04T15:15:59Z")
        load(browser, (merged / "report.html").as_uri())
        assert set(browser.run(NAMES)) == set(hosts)
        assert browser.run(CHECKED) == {name: "15 min ago" if name in late else "3 d ago" for name in hosts}
        assert browser.run("return document.getElementById('made').textContent;") == (
            "As of 2026-03-04 15:00:00 UTC. The hosts were checked between 2026-03-01 12:00:00 UTC and"
            " 2026-03-04 15:00:00 UTC."
        )
        assert "2026-03-01 12:00:00 UTC, 3 d ago" in open_host(browser, "edge1")
        assert set(sort_by(browser, "Checked")[: len(hosts) - len(late)]) == set(hosts) - late
        assert set(tile(browser, "stale")) == set(hosts) - late
        assert browser.console() == []


def test_the_files_beside_the_page_say_the_same(merged: Path) -> None:
    report = json.loads((merged / "report.json").read_text(encoding="utf-8"))
    late = set(fleet.some(fleet.realistic(), 2, 3))
    assert {one["name"]: one["checked_at"] for one in report["hosts"]} == {
        name: LATER if name in late else FIRST for name in fleet.realistic()
    }
    seconds = {FIRST: 1772366400, LATER: 1772636400}
    for one in report["hosts"]:
        metrics = (merged / "metrics" / (one["name"] + ".prom")).read_text(encoding="utf-8")
        expected = 'noiommu_checked_timestamp_seconds{host="%s"} %d' % (one["name"], seconds[one["checked_at"]])
        assert expected in metrics.splitlines()
