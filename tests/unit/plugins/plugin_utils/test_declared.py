# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each way of declaring something wrongly is named by variable, entry and key, and what modules accept is accepted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.declared import refusals
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.variables import unknown_names
from ansible_collections.baremetal.noiommu.tests.unit.support.mistakes import ACCEPTED, MISTAKES, Mistake


@pytest.mark.parametrize("accepted", ACCEPTED, ids=lambda accepted: accepted.name)
def test_what_is_accepted(accepted: Mistake) -> None:
    assert unknown_names(accepted.variables) + refusals(accepted.variables) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_what_is_wrong_is_named_in_the_operators_words(mistake: Mistake) -> None:
    (refusal,) = unknown_names(mistake.variables) or refusals(mistake.variables)
    assert refusal.code == mistake.code and refusal.evidence and refusal.remedy
    (name, *_others) = mistake.variables
    if mistake.code == "declaration":
        said = mistake.said if mistake.said.startswith("noiommu_") else name + mistake.said
        assert refusal.evidence[0].startswith(said), refusal.evidence
        assert any(variable in refusal.message and variable in refusal.remedy for variable in mistake.variables)
    else:
        assert refusal.message.startswith(name + " is not a variable") and mistake.said in str(refusal)


def test_a_text_in_the_place_of_a_list_is_explained() -> None:
    """As in -e noiommu_devices='[...]', which Ansible hands on as text."""
    (refusal,) = refusals({"noiommu_devices": "[{mac: a}]"})
    assert "-e '{\"noiommu_devices\": ...}'" in refusal.remedy


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = refusals(
        {
            "noiommu_access": {"memlok": 1, "user": "ann"},
            "noiommu_devices": [{"a": 1}],
            "noiommu_devices_b": [{"c": 1}],
            "noiommu_state": "gone",
        }
    )
    evidence = {refusal.message.split()[0]: refusal.evidence for refusal in found}
    assert set(evidence) == {"noiommu_access", "noiommu_devices", "noiommu_devices_b", "noiommu_state"}
    assert len(evidence["noiommu_access"]) == 2


@pytest.mark.parametrize(
    "name, value, remedy",
    [
        ("noiommu_access_group", "dataplane", "Write noiommu_access: {group: dataplane}."),
        ("noiommu_access_memlock", 4096, "Write noiommu_access: {memlock: 4096}."),
        ("noiommu_access_unsafe", True, "Write noiommu_accept_unsafe if that is meant."),
        ("noiommu_hugepages_count", 512, "Write noiommu_hugepages: [{count: 512, ...}]."),
        ("noiommu_sriov_vfs", 4, "Write noiommu_sriov: [{vfs: 4, ...}]."),
        ("noiommu_devices_dpdk_pa_hint", False, "Write noiommu_dpdk_pa_hint if that is meant."),
        ("noiommu_hugepages_host_memory", "2G", "Write noiommu_host_memory if that is meant."),
        ("noiommu_access_storage", "group=x", "Declare noiommu_access_storage in the inventory, or give it as JSON"),
        ("noiommu_access_storage", {"userz": ["ann"]}, "Correct noiommu_access_storage;"),
    ],
)
def test_the_remedy_of_a_name_that_adds_to_another(name: str, value: Any, remedy: str) -> None:
    (refusal,) = refusals({name: value})
    whole = "_".join(name.split("_")[:2])
    assert refusal.remedy.startswith(remedy), refusal.remedy
    assert refusal.remedy.endswith(" %s adds to %s, as every %s_NAME does." % (name, whole, whole))
