# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A variable that is left empty is as if it were not set; false is not empty."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.fleet import Fleet
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.test_summary import answers

HINTS = {"unset": {}, "none": None, "text": "", "right": True, "off": False, "word": "false", "zero": 0}


def test_the_hint_that_is_left_empty(tmp_path_factory: pytest.TempPathFactory) -> None:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    for name, hint in HINTS.items():
        own: dict[str, Any] = {} if hint == {} else {"noiommu_dpdk_pa_hint": hint}
        fleet.add(name, answers(), **own)
    declared = {"noiommu_accept_unsafe": True, "noiommu_devices": [{"address": "0000:65:00.0"}]}
    played = fleet.play("deploy", **declared)
    for name in HINTS:
        asked = [line for line in played.asked[name] if line.startswith(("vfio_binding", "noiommu_info"))]
        assert len(asked) == 2, played.text
        said = [re.findall(r'"dpdk_pa_hint": "?(\w+)', line) for line in asked]
        assert said == [["false"] if name in ("off", "word") else ["0"] if name == "zero" else ["true"]] * 2, name
