# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts with devices to bind, before and after a boot."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.tests.unit.support.booting import (
    ALIKE,
    NIC,
    REQUEST,
    VIRTIO,
    A,
    B,
    reboot,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.data_nics import DISK
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import (
    Machine,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    converge,
)


@pytest.fixture
def booted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host that was deployed and then booted: files are there, devices are back on their drivers."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    tree = machine.tree
    tree.pci(NIC, driver="e1000e")
    tree.net("eth1", NIC, "52:54:00:00:00:11")
    tree.pci(VIRTIO, "1af4:1041", driver="virtio-pci")
    tree.net("eth2", VIRTIO, "52:54:00:00:00:12", child="virtio2")
    converge(machine, REQUEST)
    for address, driver in ((NIC, "e1000e"), (VIRTIO, "virtio-pci")):
        machine.unbind(address)
        machine.drop(address)
        tree.file(tree.real(address) + "/driver_override", "(null)")
        machine.bind(address, driver)
    for module in ("noiommu", "vfio-pci", "vfio_iommu_type1"):
        machine.unload(module)
    machine.requests.clear()
    return machine


@pytest.fixture
def alike(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host that was deployed with two NICs of one kind, one of them up and with a driver of its own, and booted."""
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    for number, (address, driver) in enumerate(((A, "e1000e"), (B, "other"))):
        machine.tree.pci(address, driver=driver)
        machine.tree.net("eth%d" % number, address, "52:54:00:00:00:2%d" % number)
    converge(machine, ALIKE)
    reboot(machine, a_04="e1000e", b_05="other")
    return machine


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host with two data NICs and a disk."""
    tree = machine.tree
    tree.pci(NIC, driver="e1000e")
    tree.net("eth1", NIC, "52:54:00:00:00:11", up=True)
    tree.pci(VIRTIO, "1af4:1041", driver="virtio-pci")
    tree.net("eth2", VIRTIO, "52:54:00:00:00:12", child="virtio2")
    tree.pci(DISK, "1af4:1042", "010000", driver="virtio-pci")
    tree.dir("/run/systemd/system")
    return machine
