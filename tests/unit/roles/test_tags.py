# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tags reach what the role passthrough includes: its steps by their names, all of it by a tag that somebody gave it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ansible_collections.baremetal.noiommu.tests.unit.roles.test_nothing_by_accident import DECLARED, stubbed_collection
from ansible_collections.baremetal.noiommu.tests.unit.support.control_node import Control, play

ROLE = "baremetal.noiommu.passthrough"
ASKED = {
    "step": ["noiommu_info", "hugepages", "hugepages"],
    "mine": ["noiommu_info", "hugepages", "vfio_binding", "dataplane_access", "hugepages"],
}


def test_a_role_in_a_play_of_somebody_else(tmp_path: Path) -> None:
    control = Control(tmp_path, stubbed_collection(tmp_path / "collections"))
    keywords = {"environment": {"ASKED": "%s/asked_{{ inventory_hostname }}" % tmp_path}}
    plays = [play("step", roles=[ROLE], **keywords), play("mine", roles=[{"role": ROLE, "tags": ["mine"]}], **keywords)]
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    done = control.run(plays, dict.fromkeys(ASKED, DECLARED), "--tags", "hugepages,mine", **here)
    assert done.rc == 0, done.said
    for host, asked in ASKED.items():
        lines = (tmp_path / ("asked_" + host)).read_text().splitlines()
        assert [json.loads(line)[0] for line in lines] == asked, host
