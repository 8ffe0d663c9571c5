# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a device could be recognised while the host's driver still showed its interfaces and serial numbers."""

from __future__ import annotations

from typing import NamedTuple

from .._host.pci import PciBus, PciDevice, normalise_serials


class Recorded(NamedTuple):
    """What was recorded of a device before it was bound to VFIO."""

    address: str
    vendor_device: str
    interfaces: list[str]
    macs: list[str]
    serials: tuple[str, ...] = ()


def find_recorded(record: Recorded, bus: PciBus) -> PciDevice | None:
    """Return the recorded device; None if it is gone or a different one is at its address."""
    device = bus.get(record.address)
    if device is None or device.vendor_device != record.vendor_device:
        return None
    # Either side may lack a serial number that only the host's driver shows.
    recorded, present = normalise_serials(record.serials), normalise_serials(device.serials)
    return device if recorded <= present or present <= recorded else None
