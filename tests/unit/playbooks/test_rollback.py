# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rollback needs nothing of what is declared: a wrong declaration must not keep a host insecure."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.fleet import Fleet

MODULES = ["dataplane_access", "vfio_binding", "hugepages", "kernel_cmdline", "dkms_module", "kernel_taint_info"]
TAINT = {"mask": 0, "flags": [], "changed": False}


@pytest.mark.parametrize(
    "declared",
    [
        {
            "noiommu_accept_unsafe": "maybe",
            "noiommu_access": {"group": "dp", "userz": ["a"]},
            "noiommu_access_group": "dp",
            "noiommu_devices": [{"interface": "{{ nope }}"}],
            "noiommu_hugepages": [{"size": "2X", "count": 1}],
            "noiommu_hugepages_b": [{"size": "2M", "count": 1}],
        }
    ],
)
def test_it_releases_all_the_same(tmp_path_factory: pytest.TempPathFactory, declared: dict[str, Any]) -> None:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    fleet.add("host", {name: [("", TAINT)] for name in MODULES})
    played = fleet.play("rollback", **declared)
    assert "everything was given back" in played.said_of("host"), played.text
    asked = [line.split()[0] for line in played.asked["host"]]
    assert [name for name in MODULES if name not in asked] == [], played.text
