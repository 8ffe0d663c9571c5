# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables that add up do so in one order, whatever group they are from."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import parts


@pytest.mark.parametrize(
    "name, whole",
    [
        ("noiommu_devices_storage", "noiommu_devices"),
        ("noiommu_hugepages_2", "noiommu_hugepages"),
        ("noiommu_hugepage_mounts_x", "noiommu_hugepage_mounts"),
        ("noiommu_devices", None),
        ("noiommu_devices_", None),
        ("noiommu_state_x", None),
        ("noiommu_hugepage_mounts", None),
    ],
)
def test_which_names_add_to_which_variable(name: str, whole: str | None) -> None:
    assert parts.whole_of(name) == whole


@pytest.mark.parametrize(
    "whole, values, together",
    [
        ("noiommu_devices", {}, None),
        ("noiommu_devices", {"": None}, None),
        ("noiommu_devices", {"": "", "_a": []}, []),
        (
            "noiommu_devices",
            {"_b": [{"mac": 3}], "_a": [{"mac": 2}], "": [{"mac": 1}]},
            [{"mac": n} for n in (1, 2, 3)],
        ),
        (
            "noiommu_hugepages",
            {
                "_a": [{"size": "2M", "count": 1}, {"size": "2M", "count": 8, "node": 1}],
                "_b": [{"size": 2097152, "count": "2"}, {"size": "1G", "count": 4}],
            },
            [{"size": "2M", "count": 3}, {"size": "2M", "count": 8, "node": 1}, {"size": "1G", "count": 4}],
        ),
        ("noiommu_access", {"": {"profile": "spdk", "users": "a,b"}}, {"profile": "spdk", "users": "a,b"}),
        ("noiommu_access", {"": {}, "_a": {}}, {}),
        (
            "noiommu_access",
            {
                "": {"group": "g", "users": ["a"], "services": [{"name": "x"}]},
                "_s": {"profile": "spdk", "users": "b,a", "services": [{"name": "y"}, {"name": "z", "profile": "ovs"}]},
            },
            {
                "group": "g",
                "users": ["a", "b"],
                "services": [{"name": "x"}, {"name": "y", "profile": "spdk"}, {"name": "z", "profile": "ovs"}],
            },
        ),
    ],
)
def test_what_they_declare_together(whole: str, values: dict[str, Any], together: Any) -> None:
    assert parts.add_up(whole, {whole + ending: value for ending, value in values.items()}) == together
