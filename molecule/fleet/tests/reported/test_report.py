# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on a real fleet: what it knows of each host, as people see it in a browser and as programs read it."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from live import REPOSITORY, RUN, SCENARIO, hosts, nics, playbook, rig
from report.browser import Browser

HOSTS = hosts()
INSECURE = sorted(name for name, variables in HOSTS.items() if variables["expected_backend"] != "iommu")
DEST = RUN / "report"

NAMES = "return [...document.querySelectorAll('#rows .open')].map((one) => one.textContent);"


def report(**variables) -> dict:
    done = playbook("report", "noiommu", noiommu_report_dir=str(DEST), **variables)
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
    return json.loads((DEST / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found() -> dict:
    return report()


@pytest.fixture(scope="module")
def by_name(found) -> dict[str, dict]:
    return {host["name"]: host for host in found["hosts"]}


def test_the_whole_inventory_fits_on_a_page():
    assert len((SCENARIO / "inventory" / "hosts.yml").read_text(encoding="utf-8").splitlines()) < 40


def test_it_keeps_its_schema(found):
    schema = json.loads((REPOSITORY / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(found)


def test_every_host_is_as_declared(found, by_name):
    assert sorted(by_name) == sorted(HOSTS)
    assert {name: host["reason"] for name, host in by_name.items()} == dict.fromkeys(HOSTS, "")
    assert found["summary"] | {"hosts": 4, "ok": 4, "insecure": 3, "drifted": 0, "unreachable": 0} == found["summary"]


def test_backends(by_name):
    assert {name: host["backend"] for name, host in by_name.items()} == {
        name: variables["expected_backend"] for name, variables in HOSTS.items()
    }


def test_who_is_insecure_and_since_when(by_name):
    assert sorted(name for name, host in by_name.items() if host["insecure"]["active"]) == INSECURE
    for name in INSECURE:
        assert by_name[name]["insecure"]["since"] and by_name[name]["insecure"]["since_from"] == "record"
    assert by_name["bookworm"]["insecure"]["until"] == "2126-12-31"


def test_taint_has_an_attribution_wherever_it_is_ours(by_name):
    """The module taints as what it is, and as insecure once a device is opened; VFIO's own mode when it is bound."""
    assert by_name["isolated"]["taint"]["mask"] == 0
    for name in INSECURE:
        flags = by_name[name]["taint"]["flags"]
        blamed = [cause for flag in flags for cause in flag["attribution"]]
        ours = [cause["insecure_passthrough"] if name == "vendor" else cause["name"] == "noiommu" for cause in blamed]
        assert any(ours), flags


def test_devices_and_pages(by_name):
    for name, host in by_name.items():
        bound = {device["address"] for device in host["devices"] if device["driver"] == "vfio-pci"}
        assert bound == set(nics(name))
        assert [pool["count"] for pool in host["hugepages"] if pool["size"] == "2M" and pool["node"] is None] == [96]


def test_each_host_has_metrics():
    metrics = {path.stem: path.read_text(encoding="utf-8") for path in (DEST / "metrics").glob("*.prom")}
    assert sorted(metrics) == sorted(HOSTS)
    for name, text in metrics.items():
        assert f'noiommu_insecure{{host="{name}"}} {int(name in INSECURE)}' in text, text


def test_a_second_report_changes_no_host_and_no_word(found):
    assert report()["hosts"] == found["hosts"]


def test_the_page_in_a_browser(capsys):
    with Browser() as browser:
        browser.open((DEST / "report.html").as_uri())
        assert browser.wait("return document.querySelectorAll('#rows > tr').length === 4;"), browser.console()
        press = "[...document.querySelectorAll('#columns button')].find((one) => one.textContent === 'Host').click();"
        browser.run(press)
        assert browser.run(NAMES) == sorted(HOSTS)
        browser.run(press)
        assert browser.run(NAMES) == sorted(HOSTS, reverse=True)
        browser.run(
            "const field = document.getElementById('backend'); field.value = 'builtin';"
            "field.dispatchEvent(new Event('change'));"
        )
        assert browser.run(NAMES) == ["vendor"]
        assert browser.console() == []
        painted = browser.run("return performance.getEntriesByName('first-contentful-paint')[0].startTime;")
    with capsys.disabled():
        print(f"\nfirst paint of the page of four hosts: {painted:.0f} ms")


def test_who_cannot_be_reached_and_who_is_in_maintenance():
    rig("off", "isolated")
    try:
        inventory = yaml.safe_load((SCENARIO / "inventory" / "hosts.yml").read_text(encoding="utf-8"))
        assert "isolated" in inventory["noiommu"]["hosts"]
        states = {host["name"]: host["state"] for host in report()["hosts"]}
    finally:
        rig("on", "isolated")
    assert states == {**dict.fromkeys(HOSTS, "ok"), "isolated": "unreachable"}
    states = {host["name"]: (host["state"], host["reason"]) for host in report(noiommu_maintenance="fan 3")["hosts"]}
    assert states == dict.fromkeys(HOSTS, ("maintenance", "fan 3"))
