# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics as node_exporter's textfile collector takes them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.fleet import host_record
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.metrics import render
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.record import STATES, blank
from ansible_collections.baremetal.noiommu.tests.report import fleet

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
LINE = re.compile(r"^(noiommu_[a-z_]+)(\{(%s)(,%s)*\})? (-?\d+)$" % (LABEL, LABEL))


def parse(text: str) -> dict[str, int]:
    """Return the samples; fail where the format is broken."""
    samples, described, current = {}, [], None
    assert text.endswith("\n") and "\r" not in text
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            current = line.split(" ")[2]
            # One family, one place: a second one is an error.
            assert current not in described and len(line.split(" ", 3)[3]) > 5
            described.append(current)
        elif line.startswith("# TYPE "):
            assert line == "# TYPE %s gauge" % current
        else:
            match = LINE.match(line)
            assert match and match.group(1) == current, line
            sample = line.rsplit(" ", 1)[0]
            assert sample not in samples, line
            samples[sample] = int(match.group(5))
    return samples


def of(name: str, **labels: str) -> dict[str, int]:
    return parse(render(host_record(name, fleet.realistic()[name]), 1772366400.9, labels))


def test_a_host_as_declared() -> None:
    found = of("edge1")
    assert {state: found['noiommu_state{state="%s"}' % state] for state in STATES} == {
        state: int(state == "ok") for state in STATES
    }
    assert found["noiommu_checked_timestamp_seconds"] == 1772366400
    assert found['noiommu_backend_info{backend="dkms",kernel="6.1.0-56-amd64"}'] == 1
    assert found["noiommu_insecure"] == 1 and found["noiommu_insecure_used"] == 1
    assert found["noiommu_insecure_since_timestamp_seconds"] == 1768465800  # 2026-01-15T08:30:00Z
    assert found["noiommu_insecure_until_timestamp_seconds"] == 1782864000  # 2026-07-01T00:00:00Z
    assert found["noiommu_insecure_expired"] == 0
    assert found["noiommu_kernel_taint_mask"] == 12352
    assert found['noiommu_kernel_taint{flag="user",letter="U"}'] == 1
    assert found['noiommu_devices{safety="unsafe"}'] == 2
    labels = 'address="0000:65:00.1",driver="vfio-pci",vendor_device="8086:1572",group="11",safety="unsafe"'
    assert found["noiommu_device_info{%s}" % labels] == 1
    assert found['noiommu_hugepages{size="2M",node=""}'] == 1024
    assert found['noiommu_hugepages_free{size="2M",node="1"}'] == 256
    assert found["noiommu_reboot_pending"] == 0 and found["noiommu_keys_to_enrol"] == 0
    assert not any(sample.startswith("noiommu_drift") for sample in found)


def test_drift_and_what_is_pending() -> None:
    assert of("edge2")['noiommu_drift{concern="hugepages"}'] == 1
    assert of("lab4")["noiommu_reboot_pending"] == 1 and of("lab4")["noiommu_keys_to_enrol"] == 1
    assert of("edge4")["noiommu_insecure_expired"] == 1


def test_of_a_host_in_maintenance_nothing_else_counts() -> None:
    found = parse(render(host_record("edge2", fleet.realistic()["edge2"], "disk replaced"), 1.0))
    assert found['noiommu_state{state="maintenance"}'] == 1
    assert not [sample for sample in found if sample.startswith(("noiommu_drift", "noiommu_reboot"))]


def test_of_keys_and_reboots_the_host_itself_says_what_it_knows() -> None:
    def waiting(name: str) -> dict[str, int]:
        found = parse(render(host_record(name, fleet.realistic()[name]), 1.0, whole=False))
        return {sample: value for sample, value in found.items() if "reboot" in sample or "enrol" in sample}

    assert waiting("edge1") == {}
    assert waiting("lab4") == {"noiommu_reboot_pending": 1}


def test_what_is_not_known_has_no_sample() -> None:
    found = of("lab2")
    assert found['noiommu_state{state="unreachable"}'] == 1
    names = {sample.split("{")[0] for sample in found}
    assert names == {"noiommu_state", "noiommu_checked_timestamp_seconds"}
    assert "noiommu_insecure_expired" not in of("core1")


def test_the_host_is_a_label_where_several_share_a_directory() -> None:
    assert all('{host="edge1"' in sample for sample in of("edge1", host="edge1"))


@pytest.mark.parametrize("name", fleet.hostile())
def test_nothing_that_a_host_says_breaks_the_format(name: str) -> None:
    record = host_record(name, fleet.hostile()[name])
    parse(render(record, 1, {"host": record["name"]}))


@pytest.mark.parametrize("text, escaped", [('"', '\\"'), ("\\", "\\\\"), ("\n", "\\n"), ('\\"\n', '\\\\\\"\\n')])
def test_labels_are_escaped(text: str, escaped: str) -> None:
    record: dict[str, Any] = {**blank("ok", ""), "backend": text}
    assert 'backend="%s",' % escaped in render(record, 1)
