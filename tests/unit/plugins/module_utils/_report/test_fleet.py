# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet report: records, JSON after the published schema, and a page that no host can break."""

from __future__ import annotations

import copy
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.baremetal.noiommu.plugins.action.fleet_report import read_parts
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.files import REMOVED
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import fleet as _report
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.fleet import (
    host_record,
    render_json,
    render_page,
)
from ansible_collections.baremetal.noiommu.tests.report import fleet

SCHEMA = json.loads((Path(fleet.__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def record(name: str) -> dict[str, Any]:
    return host_record(name, fleet.realistic()[name])


# --- one host ---


@pytest.mark.parametrize(
    "name, state, reason",
    [
        ("edge1", "ok", ""),
        ("edge2", "drifted", "hugepages: 2M: 960 instead of 1024"),
        ("edge3", "drifted", "device bindings: 0000:65:00.1: unbind from i40e; 0000:65:00.1: bind to vfio-pci"),
        (
            "edge4",
            "expired",
            "insecure_expired: Insecure passthrough was accepted until 2026-01-31, and that day is over."
            " Nothing on this host was changed.",
        ),
        ("core3", "refused", "guarded_device: 0000:65:00.0 carries the address of the management connection."),
        ("lab1", "refused", "unsafe_not_accepted: Insecure mode was not accepted."),
        (
            "lab2",
            "unreachable",
            "Failed to connect to the host via ssh: ssh: connect to host 192.0.2.7 port 22: No route to host",
        ),
        ("lab3", "failed", "Task failed: the module interpreter was not found"),
        ("lab4", "ok", ""),
    ],
)
def test_state_and_reason(name: str, state: str, reason: str) -> None:
    found = record(name)
    assert (found["state"], found["reason"]) == (state, reason)


def test_the_time_of_the_taint_and_who_set_it() -> None:
    found = record("edge1")
    assert found["insecure"]["since"] == "2026-01-15T08:30:00Z" and found["insecure"]["since_from"] == "record"
    user = found["taint"]["flags"][0]
    assert user["name"] == "user" and user["attribution"][0]["name"] == "dpdk-testpmd"


def test_what_is_pending() -> None:
    found = record("lab4")
    assert found["keys_to_enrol"] == ["/var/lib/dkms/mok.pub"] and len(found["reboot_pending"]) == 1
    registered = {**fleet.answers(), "passthrough_cmdline": {"changed": False, "reboot_required": True}}
    found = host_record("a", registered)
    assert found["reboot_pending"] == ["boot parameters: a reboot is needed"] and found["state"] == "drifted"


def test_a_refusal_met_later_than_preflight() -> None:
    refusal = {"code": "in_use", "message": "It is in use.", "evidence": ["pid 1"], "remedy": "Stop it."}
    registered = {**fleet.answers(), "compare_failure": {"failed": True, "msg": "It is in use.", "refusals": [refusal]}}
    found = host_record("a", registered)
    assert (found["state"], found["reason"]) == ("refused", "in_use: It is in use.") and found["refusals"] == [refusal]


def test_expiry_does_not_hide_drift() -> None:
    registered = {
        **fleet.realistic()["edge4"],
        "access_result": {
            "changed": True,
            "diff": [{"before_header": "/etc/group", "before": "", "after": "x"}, {"before_header": "/etc/group"}],
        },
    }
    found = host_record("a", registered)
    assert found["state"] == "expired" and found["drift"] == [{"concern": "access", "changes": ["/etc/group differs"]}]
    assert found["reason"].endswith("| access: /etc/group differs")


def test_expiry_does_not_hide_a_failure() -> None:
    failed = {**fleet.realistic()["edge4"], "compare_failure": {"failed": True, "msg": "MODULE FAILURE: see stderr"}}
    found = host_record("a", failed)
    assert (found["state"], found["reason"]) == ("failed", "MODULE FAILURE: see stderr")
    assert found["insecure"]["expired"] and [one["code"] for one in found["refusals"]] == ["insecure_expired"]


def test_a_host_lost_half_way_is_unreachable() -> None:
    found = host_record(
        "a",
        {
            **fleet.answers(),
            "hugepages_result": {"unreachable": True, "msg": "closed"},
            "compare_failure": {"failed": True, "msg": "undefined"},
        },
    )
    assert (found["state"], found["reason"]) == ("unreachable", "closed")
    # What it said before is kept.
    assert found["backend"] == "dkms"


def test_a_host_that_the_run_knows_nothing_of() -> None:
    assert host_record("a", {})["state"] == "failed"


def test_maintenance_is_the_state_whatever_was_found() -> None:
    found = host_record("a", fleet.unreachable(), "disk swap, ticket 7")
    assert (found["state"], found["reason"]) == ("maintenance", "disk swap, ticket 7")


def test_a_host_that_shall_have_nothing_gets_no_verdict_but_facts() -> None:
    facts = fleet.answers()["preflight_info"]
    found = host_record("a", {"compare_facts": facts, "devices_result": {"changed": True, "steps": ["give it back"]}})
    assert (found["state"], found["backend"]) == ("drifted", "dkms")


def test_why_a_reboot_is_pending() -> None:
    verdict = {"backend": None, "refusals": [], "reboot_required": True}
    iommu = {"iommu_boot": {"pending": True}}
    for facts, expected in (({}, "modules of the running kernel"), (iommu, "IOMMU is turned on")):
        found = host_record("a", {"preflight_info": {"verdict": verdict, **facts}})
        assert len(found["reboot_pending"]) == 1 and expected in found["reboot_pending"][0]


def test_only_declared_devices_and_those_that_vfio_has_are_shown() -> None:
    devices = [{**fleet.device(0, "dkms"), "selected": False, "driver": driver} for driver in ("vfio-pci", "e1000e")]
    assert [
        one["driver"]
        for one in host_record(
            "a",
            fleet.answers(devices=0) | {"preflight_info": {**fleet.answers()["preflight_info"], "devices": devices}},
        )["devices"]
    ] == ["vfio-pci"]


@pytest.mark.parametrize(
    "result, expected",
    [
        ({"steps": ["one", "two"]}, ["one", "two"]),
        ({"before": {"2M": 0}, "after": {"2M": 8}}, ["2M: 0 instead of 8"]),
        ({"before": {"k": {"a": 1, "b": 2}}, "after": {"k": {"a": 1}}}, ["k b: 2 instead of nothing"]),
        (
            {"before": {}, "after": {}, "diff": [{"before_header": "/etc/x (mode 0644)"}]},
            ["/etc/x (mode 0644) differs"],
        ),
        ({"diff": {"before_header": "y"}}, ["y differs"]),
        ({"diff": [{"before_header": REMOVED, "before": "/etc/y\n/etc/z\n"}]}, ["/etc/y differs", "/etc/z differs"]),
        ({}, ["not as declared"]),
    ],
)
def test_changes(result: dict[str, Any], expected: list[str]) -> None:
    assert _report.changes({"changed": True, **result}) == expected
    assert _report.changes({"changed": False, **result}) == _report.changes({"changed": True, "failed": True}) == []


def test_a_kernel_without_a_module_is_drift_although_a_deploy_would_change_nothing() -> None:
    broken = {"changed": False, "failed_kernels": {"6.1.0-57-amd64": ["make failed", "see make.log"]}}
    found = host_record("a", {**fleet.answers(), "kmod_result": broken})
    assert (found["state"], found["reason"]) == (
        "drifted",
        "kernel module: no module for the kernel 6.1.0-57-amd64: make failed; see make.log",
    )


# --- the schema ---


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "hosts",
    [{}, fleet.realistic(), fleet.hostile(), fleet.generated(100)],
    ids=["empty", "realistic", "hostile", "generated"],
)
def test_the_report_follows_the_schema(hosts: dict[str, Any]) -> None:
    report = json.loads(render_json(fleet.report(hosts)))
    assert [error.message for error in VALIDATOR.iter_errors(report)] == []
    summary = report["summary"]
    states = ("ok", "drifted", "expired", "refused", "failed", "unreachable", "maintenance")
    assert summary["hosts"] == len(hosts) == sum(summary[state] for state in states)


def test_the_schema_would_notice() -> None:
    report = fleet.report(fleet.realistic())
    for damage in (
        lambda broken: broken.pop("version"),
        lambda broken: broken["hosts"][0].update(state="fine"),
        lambda broken: broken["hosts"][0].update(extra=1),
        lambda broken: broken["hosts"][0]["insecure"].update(since="yesterday"),
    ):
        broken = copy.deepcopy(report)
        damage(broken)
        assert not VALIDATOR.is_valid(broken)


def test_hosts_are_in_the_order_that_people_count_in() -> None:
    hosts = {name: fleet.answers() for name in ("n10", "n9", "b", "n1", "10.0.0.9", "10.0.0.10", "")}
    names = [one["name"] for one in fleet.report(hosts)["hosts"]]
    assert names == ["", "10.0.0.9", "10.0.0.10", "b", "n1", "n9", "n10"]


def test_a_host_cannot_make_the_report_large() -> None:
    hosts = {str(number): fleet.hostile()["deep"] for number in range(3)}
    assert len(render_json(fleet.report(hosts))) < 3 * 120_000
    assert len(_report.text("A" * 10**6)) < 1100


# --- the page ---


class Elements(html.parser.HTMLParser):
    """What a browser makes elements of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def elements(page: str) -> Elements:
    found = Elements()
    found.feed(page)
    found.close()
    return found


def embedded(page: str) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))


def test_hosts_add_no_element_to_the_page() -> None:
    empty = elements(render_page(fleet.report({}), read_parts()))
    full = elements(render_page(fleet.report(fleet.hostile()), read_parts()))
    assert full.tags == empty.tags and full.attributes == empty.attributes


def test_the_page_carries_the_report_as_it_is() -> None:
    report = fleet.report({**fleet.hostile(), **fleet.realistic()})
    page = render_page(report, read_parts())
    assert embedded(page) == json.loads(render_json(report))
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1)
    assert data.isascii() and not re.search("[<>&\n]", data)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render_page(fleet.report(fleet.realistic()), read_parts())
    found = elements(page)
    assert not {name for name, _value in found.attributes} & {"src", "srcset"}
    assert all(value[0] == "#" for name, value in found.attributes if name == "href")
    assert "link" not in found.tags and "@import" not in page and "url(" not in page
    # Neither does the script ask for anything, or make markup of a text.
    for word in (
        "fetch(",
        "XMLHttpRequest",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "import(",
    ):
        assert word not in page


def test_the_policy_names_the_script_that_is_there() -> None:
    page = render_page(fleet.report(fleet.hostile()), read_parts())
    policy = dict(elements(page).attributes)
    text = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy["content"] and text.startswith("default-src 'none';")
    for kind, part in (("style", "style"), ("script", "script")):
        assert "%s-src %s" % (kind, _report._digest(read_parts()[part])) in text
    assert "unsafe" not in text


# --- names and texts ---


@pytest.mark.parametrize(
    "bad, shown",
    [
        ("\x1b[31m", "\\u001b[31m"),
        ("\u202eevil", "\\u202eevil"),
        ("a\ud800b", "a\\ud800b"),
        ("漢字 ß🔥", "漢字 ß🔥"),
        ("two\nlines\tkept", "two\nlines\tkept"),
        (None, ""),
        (7, "7"),
        ("\r\n", "\\u000d\n"),
    ],
)
def test_texts(bad: Any, shown: str) -> None:
    assert _report.text(bad) == shown


def test_file_names_stay_in_their_directory_and_apart() -> None:
    names = [
        "a",
        "A",
        "a.b-c_d",
        "../../etc/passwd",
        "a/b",
        "a_b",
        "a b",
        ".",
        "..",
        ".hidden",
        "",
        "x" * 300,
        "x" * 301,
        "ß",
        "ö",
    ]
    made = [_report.file_name(name) for name in names]
    assert len(set(made)) == len(names) and made[:3] == names[:3]
    for one in made:
        assert re.match(r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", one) and len(one) < 130


def test_times_of_making_do_not_count() -> None:
    times = ("2026-01-01T00:00:00Z", "2027")
    one, other = ({**fleet.report(fleet.realistic()), "generated_at": time} for time in times)
    for render in (render_json, lambda report: render_page(report, read_parts())):
        assert render(one) != render(other)
        assert _report.without_times(render(one)) == _report.without_times(render(other))
    metrics = 'noiommu_checked_timestamp_seconds{host="a"} %d\nnoiommu_insecure 1\n'
    assert _report.without_times(metrics % 1) == _report.without_times(metrics % 2)
