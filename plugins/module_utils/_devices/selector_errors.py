# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator is told about an entry of the device list that does not select what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base.errors import HostError
from .._host.pci import NET, PciBus, PciDevice

if TYPE_CHECKING:
    from .recorded import Recorded


def selector_error(message: str, evidence: list[str], remedy: str) -> HostError:
    """Return the refusal of an entry."""
    return HostError("selector", message, evidence, remedy)


def describe(device: PciDevice) -> str:
    """Return one line by which an operator recognises a device."""
    words = [device.address, device.vendor_device]
    if device.planned:
        return " ".join(words + ["virtual function %d of %s, to be made" % (device.planned[1], device.planned[0])])
    words += ["%s %s" % (interface.name, interface.mac) for interface in device.interfaces]
    return " ".join(words + ["driver %s" % (device.driver or "none")])


def no_match(what: str, bus: PciBus) -> HostError:
    """Refuse an entry that matches nothing, with the likely candidates as evidence."""
    endpoints = [device for device in bus if device.is_endpoint]
    candidates = [device for device in endpoints if device.is_network] or endpoints
    return selector_error(
        "No PCI device on this host has %s." % what,
        evidence=["available: " + describe(device) for device in candidates] or ["no PCI devices at all"],
        remedy="Correct the entry in the device list.",
    )


def gone(record: Recorded, what: str) -> HostError:
    """Refuse an entry that means a device which an earlier run bound and which is no longer there."""
    return selector_error(
        "%s was bound by an earlier run, but it has disappeared from this host." % what,
        evidence=["recorded: %s %s, absent now" % (record.address, record.vendor_device)],
        remedy="Check the hardware (`dmesg`, `lspci`). If it was removed for good, remove it from the device list.",
    )


def malformed(value: str, what: str, expected: str, where: str) -> HostError:
    """Refuse a value that is not written as its kind requires."""
    return selector_error(
        "%r is not %s." % (value, what),
        evidence=["expected " + expected],
        remedy="Write it as %s, in quotes." % where,
    )


def not_a_pci_interface(name: str, bus: PciBus) -> HostError:
    """Refuse the name of an interface that exists but is virtual or on another bus."""
    path = bus.root.realpath(NET, name)
    is_usb = "/usb" in path.rpartition("/")[0]
    lowers = [entry[6:] for entry in bus.root.listdir(NET, name) if entry.startswith("lower_")]
    return selector_error(
        "%s is not an interface of a PCI device%s." % (name, ", but of a USB one" if is_usb else ""),
        evidence=["%s/%s -> %s" % (NET, name, path)] + ["below it: %s" % lower for lower in lowers],
        remedy="Name an interface of a PCI device: VFIO would take the USB controller and all that is plugged into it."
        if is_usb
        else "Name the physical interface.",
    )
