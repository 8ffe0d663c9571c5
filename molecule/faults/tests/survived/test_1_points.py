# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""There are as many faults as there should be, and the same on each machine: chance decides which one tries a fault."""

from __future__ import annotations

import pytest
from faults import MACHINES, points


def test_there_are_enough(request):
    faults = [item for item in request.session.items if item.path.name == "test_faults.py"]
    assert len(faults) >= 40


@pytest.mark.parametrize("other", MACHINES[1:])
def test_the_points_of_all_machines_are_the_same(other):
    first, second = (points(machine)["courses"] for machine in (MACHINES[0], other))
    for name, course in first.items():
        assert course["tasks"] == second[name]["tasks"]
        # Devices are written to at the same time: in which order is chance.
        assert sorted(course["steps"]) == sorted(second[name]["steps"])
