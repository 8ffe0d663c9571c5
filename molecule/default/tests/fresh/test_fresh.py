# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines are what the scenario says, before anything is done to them."""

from __future__ import annotations

import pytest
from live import connect

HOSTS = ("alpha", "bravo", "secure")


@pytest.mark.parametrize("name", HOSTS)
def test_the_kernel_has_no_backend_of_its_own(name):
    assert "CONFIG_VFIO_NOIOMMU is not set" in connect(name).run("cat /boot/config-$(uname -r)").stdout


def test_only_the_secure_host_has_an_iommu():
    units = {name: connect(name).run("ls /sys/class/iommu").stdout.split() for name in HOSTS}
    assert units == {"alpha": [], "bravo": [], "secure": ["dmar0"]}


@pytest.mark.parametrize("name", ("alpha", "bravo"))
def test_the_opaque_error_that_operators_meet(name):
    """Binding vfio-pci without a group is EINVAL, with no reason given: the pain this collection ends."""
    host = connect(name)
    done = host.run(
        "modprobe vfio-pci && echo vfio-pci > /sys/bus/pci/devices/0000:00:10.0/driver_override"
        " && echo 0000:00:10.0 > /sys/bus/pci/devices/0000:00:10.0/driver/unbind"
        " && echo 0000:00:10.0 > /sys/bus/pci/drivers/vfio-pci/bind"
    )
    host.run(
        "echo > /sys/bus/pci/devices/0000:00:10.0/driver_override; echo 0000:00:10.0 > /sys/bus/pci/drivers_probe;"
        " udevadm settle; modprobe -r vfio-pci vfio_iommu_type1; modprobe -r vfio_virqfd irqbypass"
    )
    assert done.rc != 0 and "Invalid argument" in done.stderr
