# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that the host does not depend on, but for which VFIO is wrong."""

from __future__ import annotations

from .._base.errors import HostError
from .._base.fs import Root
from .._host.modprobe import module_options
from .._host.pci import PciDevice

# Applications drive these by the kernel's driver, which stays bound: RDMA verbs, and queues beside it.
_BIFURCATED = {"mlx4_core": "mlx4", "mlx5_core": "mlx5", "mana": "mana"}
_MELLANOX, _MICROSOFT = "15b3", "1414"
_NETWORK, _INFINIBAND = "02", "0c06"
# From vfio_pci_dev_in_denylist() in the kernel's vfio_pci.c. Driven from userspace, they can hang the
# host or read others' memory.
_DENYLIST = {
    **dict.fromkeys(("8086:19e2", "8086:19e3", "8086:37c8", "8086:37c9", "8086:0435", "8086:0443"), "QAT"),
    **dict.fromkeys(("8086:0b25", "8086:0cfe"), "DSA or IAA"),
}
_PARAMETER = "/sys/module/vfio_pci/parameters/disable_denylist"


def poll_mode_driver(device: PciDevice) -> str | None:
    """Return DPDK's driver for a device that also needs the kernel's driver; None for all others."""
    if device.driver in _BIFURCATED:
        return _BIFURCATED[device.driver]
    # A device that was bound before, or has no driver, is recognised by its vendor.
    vendor, kind = device.vendor, device.class_code
    if vendor == _MELLANOX and kind.startswith((_NETWORK, _INFINIBAND)):
        return "mlx4 or mlx5"
    return "mana" if vendor == _MICROSOFT and kind.startswith(_NETWORK) else None


def unsuitable(root: Root, device: PciDevice, driver: str) -> list[HostError]:
    """Return why a device must not be bound to this driver."""
    refusals = []
    name = poll_mode_driver(device)
    if name is not None:
        refusals.append(
            HostError(
                "kernel_driver_needed",
                "%s needs the kernel's driver: on %s no application finds its ports." % (device.address, driver),
                evidence=[
                    "%s is %s, driver %s" % (device.address, device.vendor_device, device.driver or "none"),
                    "DPDK's driver %s works through the kernel's, which has to stay bound" % name,
                ],
                remedy="Do not declare it. Leave it to the kernel's driver and start the application on it; it needs no"
                " VFIO, and the host keeps the device.",
            )
        )
    family = _DENYLIST.get(device.vendor_device)
    if family is not None and driver == "vfio-pci" and not _is_denylist_off(root):
        refusals.append(
            HostError(
                "denylisted",
                "vfio-pci refuses %s: Intel %s is on its list of devices that are not safe in userspace."
                % (device.address, family),
                evidence=["%s is %s" % (device.address, device.vendor_device), "%s: not Y" % _PARAMETER],
                remedy="Use the kernel's driver of the device. If its users are trusted like root, put `options"
                " vfio-pci disable_denylist=1` into a file in /etc/modprobe.d, unload vfio-pci, and run again.",
            )
        )
    return refusals


def _is_denylist_off(root: Root) -> bool:
    shown = root.read_text(_PARAMETER)
    if shown is not None:
        return shown == "Y"
    options = module_options(root, "vfio_pci")
    return any(option.name == "disable_denylist" and option.value in ("", "1", "y", "Y") for option in options)
