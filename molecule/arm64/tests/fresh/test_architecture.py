# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts are what the scenario says."""

from __future__ import annotations

import pytest
from live import hosts, on


@pytest.mark.parametrize("name", hosts())
def test_architecture_and_kernel(name):
    machine, release = on(name, "uname -m; uname -r").split()
    assert machine == "aarch64" and release.startswith("6.12.") and release.endswith("-arm64")


@pytest.mark.parametrize("name", hosts())
def test_who_has_an_iommu(name):
    there = on(name, "ls /sys/class/iommu 2>/dev/null || true").split()
    assert [entry.partition(".")[0] for entry in there] == (["smmu3"] if hosts()[name]["rig_iommu"] == "smmuv3" else [])


@pytest.mark.parametrize("name", hosts())
def test_message_signalled_interrupts_have_an_its(name):
    assert "ITS" in on(name, "dmesg | grep -i -e its@ -e 'ITS.*mem' || true")
