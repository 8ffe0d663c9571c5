# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of variables is the one that is used and explained, and every misspelling is told from other names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import VARIABLES
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.variables import unknown_names

COLLECTION = Path(__file__).resolve().parents[4]
NAME = re.compile(r"(?<![.\w])noiommu_[a-z_]+")  # not baremetal.noiommu.noiommu_info


def test_every_variable_that_is_used_is_known_and_the_other_way_round() -> None:
    places = ("roles/*/*/*", "playbooks/**/*.yml", "playbooks/*/*.j2")
    files = [path for place in places for path in COLLECTION.glob(place)]
    used = {name for path in files for name in NAME.findall(path.read_text(encoding="utf-8"))}
    assert used == set(VARIABLES)


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("noiommu_device", "noiommu_devices"),
        ("noiommu_hugepage", "noiommu_hugepages"),
        ("noiommu_acces", "noiommu_access"),
        ("noiommu_maintainance", "noiommu_maintenance"),
        ("noiommu_insecure_untill", "noiommu_insecure_until"),
        ("noiommu_Devices", "noiommu_devices"),
        ("noiomu_devices", "noiommu_devices"),
        ("no_iommu_devices", "noiommu_devices"),
        ("NOIOMMU_STATE", "noiommu_state"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    (refusal,) = unknown_names({name: None, nearest: None, "inventory_hostname": "edge1"})
    assert refusal.code == "unknown_variable" and refusal.message.startswith(name + " is not a variable")
    assert "Write %s." % nearest in refusal.remedy and nearest in refusal.evidence[0]


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    (refusal,) = unknown_names({"noiommu_qqqqqqqqqqqqqqqqq": 1})
    assert "none is named like it" in str(refusal) and "docs/variables.md" in refusal.remedy


def test_all_that_are_unknown_are_told() -> None:
    found = unknown_names({"noiommu_b": 1, "noiommu_a": 1, "noiommu_state": "present"})
    assert [refusal.message.split()[0] for refusal in found] == ["noiommu_a", "noiommu_b"]


@pytest.mark.parametrize(
    "name",
    [
        *VARIABLES,
        "noiommu",
        "iommu_devices",
        "nommu_devices",
        "no_iommu_here",
        "our_noiommu_devices",
        "preflight_info",
    ],
)
def test_other_names_are_nobodys_business(name: str) -> None:
    assert unknown_names({name: 1}) == []
