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


# The entropy device: nobody declared it, and the host does without.
OTHER = "/sys/bus/pci/devices/0000:00:04.0"


def owner(device: str) -> str:
    """Return who has the node of a device's group, once udev is done with it."""
    on(HOST, "udevadm settle")
    return on(HOST, f"stat -c '%U:%G %a' /dev/vfio/$(basename $(readlink {device}/iommu_group))").strip()


def test_the_group_gets_the_nodes_of_the_declared_devices_and_no_others():
    for nic in nics(HOST):
        assert owner(f"/sys/bus/pci/devices/{nic}") == "root:dataplane 660"
    driver = on(HOST, f"basename $(readlink {OTHER}/driver)").strip()
    rebind = f"echo 0000:00:04.0 > {OTHER}/driver/unbind; echo 0000:00:04.0 > /sys/bus/pci/drivers_probe"
    try:
        on(HOST, f"echo vfio-pci > {OTHER}/driver_override; {rebind}")
        assert owner(OTHER) == "root:root 600"
        # As a change of the device makes udev read its rules again.
        on(HOST, "udevadm trigger --action=add --subsystem-match=vfio")
        assert owner(OTHER) == "root:root 600"
        assert owner(f"/sys/bus/pci/devices/{nics(HOST)[0]}") == "root:dataplane 660"
    finally:
        on(HOST, f"echo > {OTHER}/driver_override; {rebind}")
    assert on(HOST, f"basename $(readlink {OTHER}/driver)").strip() == driver
