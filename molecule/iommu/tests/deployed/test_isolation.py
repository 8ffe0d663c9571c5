# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What isolation is: the IOMMU translates, interrupts are remapped, and no parameter says otherwise."""

from __future__ import annotations

from live import nics, on, run_python, steps_of

HOST = "secure"


def test_interrupts_are_remapped():
    assert "Enabled IRQ remapping" in on(HOST, "dmesg")
    assert on(HOST, "cat /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts || echo N").strip() == "N"


def test_a_client_may_choose_its_iova_and_taints_nothing():
    """Any address: the IOMMU translates it. Without one only the bus address can work."""
    report = run_python(HOST, "clients/vfio_client.py", nics(HOST)[0])
    assert steps_of(report)["map_low"] == "", report
    assert report["taint_after"] == 0


def test_each_device_has_a_group_of_its_own():
    groups = {on(HOST, f"readlink /sys/bus/pci/devices/{nic}/iommu_group").strip() for nic in nics(HOST)}
    assert len(groups) == len(nics(HOST))
