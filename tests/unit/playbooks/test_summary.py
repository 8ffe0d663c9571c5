# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a deploy says at its end: a line for each host, and one for all of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.tests.report import fleet as reported
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.fleet import Answers, Fleet, Played


def answers(backend: str = "dkms", pending: bool = False, **modules: dict[str, Any]) -> Answers:
    info = {
        **reported.answers(backend, devices=1)["preflight_info"],
        "prebuilt_kernels": [],
        "packages_missing": [],
        "recorded": {},
        "iommu_boot": {"recorded": False, "pending": pending, "parameters": [], "without": []},
    }
    taint = {"changed": False, "mask": 0, "flags": []}
    said = {"noiommu_info": info, "kernel_taint_info": taint, "kernel_cmdline": {"changed": pending}, **modules}
    return {name: [("", answer)] for name, answer in said.items()}


CHANGED = {"changed": True}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    hosts = Fleet(tmp_path_factory.mktemp("fleet"))
    hosts.add("same", answers())
    hosts.add("changed", answers(dkms_module=CHANGED, vfio_binding=CHANGED))
    hosts.add("isolated", answers("iommu"))
    hosts.add("waiting", answers(pending=True))
    hosts.add("failing", answers(dkms_module=CHANGED, vfio_binding={"failed": True, "msg": "no"}))
    hosts.add("absent", answers(vfio_binding=CHANGED), noiommu_state="absent")
    hosts.add("paused", answers(), noiommu_maintenance="a new disk")
    return hosts


DECLARED = {"noiommu_accept_unsafe": True, "noiommu_devices": [{"address": "0000:65:00.0"}]}


@pytest.fixture(scope="module")
def deployed(fleet: Fleet) -> Played:
    return fleet.play("deploy", **DECLARED)


@pytest.fixture(scope="module")
def predicted(fleet: Fleet) -> Played:
    return fleet.play("deploy", options=("--check",), **DECLARED)


def line_of(played: Played, name: str) -> str:
    lines = [line for line in played.text.splitlines() if '"msg": "%s: ' % name in line]
    assert len(lines) == 1, played.text
    return lines[0].partition('"msg": ')[2].strip('"')


STATE = "backend dkms, INSECURE: no IOMMU, the devices can reach all memory, kernel taint 12352"


@pytest.mark.parametrize(
    "name, said",
    [
        ("same", "same: " + STATE),
        ("changed", "changed: " + STATE),
        ("isolated", "isolated: backend iommu, isolated by a hardware IOMMU, kernel taint 0"),
        ("absent", "absent: everything was given back. The kernel stays tainted"),
    ],
)
def test_a_deploy_says_what_each_host_is(deployed: Played, name: str, said: str) -> None:
    assert line_of(deployed, name).startswith(said), deployed.text


@pytest.mark.parametrize(
    "name, said",
    [
        ("same", "same: nothing would be changed. Now: " + STATE),
        ("changed", "changed: kernel module, device bindings would be changed. Now: " + STATE),
        ("isolated", "isolated: nothing would be changed. Now: backend iommu"),
        ("waiting", "waiting: boot parameters would be changed. Now: "),
        ("absent", "absent: everything would be given back."),
    ],
)
def test_check_mode_says_what_would_be(predicted: Played, name: str, said: str) -> None:
    assert line_of(predicted, name).startswith(said), predicted.text


def test_the_fleet_has_a_total(deployed: Played) -> None:
    assert line_of(deployed, "fleet") == (
        "fleet: 7 hosts: 2 insecure (no IOMMU), 1 isolated by an IOMMU, 1 waiting for a reboot, 1 given back,"
        " 1 in maintenance, 1 failed; 4 changed"
    )


def test_check_mode_says_what_the_total_would_be(predicted: Played) -> None:
    assert line_of(predicted, "fleet") == (
        "fleet: 7 hosts: 2 would be insecure (no IOMMU), 1 isolated by an IOMMU, 1 waiting for a reboot, 1 given back,"
        " 1 in maintenance, 1 failed; 4 would be changed"
    )


def test_a_total_of_few_says_only_what_there_is(fleet: Fleet) -> None:
    text = line_of(fleet.play("deploy", "same", **DECLARED), "fleet")
    assert text == "fleet: 1 host: 1 insecure (no IOMMU), 0 isolated by an IOMMU, 0 failed; 0 changed"


def test_a_build_is_announced_with_what_it_took_the_canary(tmp_path_factory: pytest.TempPathFactory) -> None:
    hosts = Fleet(tmp_path_factory.mktemp("building"))
    asked = {"changed": True, "source_needed": False, "to_build": ["6.1.0-56-amd64"]}
    for name in ("canary", "later"):
        hosts.add(name, {**answers(), "dkms_module": [('"announced": true', CHANGED), ("", asked)]})
    text = hosts.play("deploy", options=("-e", '{"noiommu_batches": [1]}'), **DECLARED).text
    canary, later = (line for line in text.splitlines() if "builds the kernel module" in line)
    assert canary == "canary builds the kernel module for 6.1.0-56-amd64, and is waited for."
    assert re.fullmatch(r"later builds .* and is waited for\. It took canary \d+ s\.", later)
    assert text.index(canary) < text.index("changed: [canary]")
