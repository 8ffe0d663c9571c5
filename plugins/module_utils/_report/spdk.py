# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What SPDK's setup.sh leaves behind on a host that was deployed.

It sees our IOMMU groups and so binds each disk that is not in use to vfio-pci. That needs a group: our disks stay as
they are, all others end up without a driver. Its ``reset`` gives all disks to the kernel's drivers, ours included.
"""

from __future__ import annotations

from typing import Iterator

from .._base.fs import Root
from .._devices.hanging import hanging
from .._devices.originals import Originals
from .._devices.steps import DeviceState, Target
from .._host.pci import PciBus, PciDevice
from .._policy.kinds import VFIO_PCI

_NVME = "0108"
_STORAGE = "01"
_NVME_DRIVER = "/sys/bus/pci/drivers/nvme"
# Versions before 24.01 leave the override of whoever bound the device before, later ones clear it.
_OVERRIDES = (None, VFIO_PCI, "uio_pci_generic", "igb_uio")


def disks_without_driver(root: Root, bus: PciBus, declared: set[str]) -> Iterator[str]:
    """Yield the NVMe disks that have no driver, although there is one and nothing that is recorded explains it."""
    if not root.exists(_NVME_DRIVER):
        return
    explained = declared | set(Originals.load(root).devices)
    for device in bus:
        if device.class_code.startswith(_NVME) and device.driver is None and device.address not in explained:
            if hanging(root, device.address) or device.driver_override not in _OVERRIDES:
                continue
            yield (
                "%s is an NVMe disk that is not declared and has no driver, as after SPDK's setup.sh: "
                "`echo %s > /sys/bus/pci/drivers_probe` gives it back to the kernel%s"
                % (device.address, device.address, _clear(device))
            )


def _clear(device: PciDevice) -> str:
    if device.driver_override is None:
        return ""
    return ", once its driver_override (%s) is cleared" % device.driver_override


def after_reset(device: PciDevice, state: DeviceState, want: Target) -> str:
    """Return a hint where a declared disk is as SPDK's ``setup.sh reset`` leaves it; nothing for all others.

    What made its group still has it, and the kernel's driver is back; or none, where a driver_override forbids it.
    """
    is_off = state.driver != want.driver and state.in_module == want.in_module
    if not device.class_code.startswith(_STORAGE) or not is_off or state.driver_override not in _OVERRIDES:
        return ""
    return " (as after SPDK's `setup.sh reset`)"
