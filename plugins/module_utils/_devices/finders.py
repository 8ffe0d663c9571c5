# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One finder per kind of selector: from its value to the devices it means, or the error that explains why not."""

from __future__ import annotations

import re
from typing import Any, Callable

from .._base.errors import HostError
from .._host.pci import (
    NET,
    SLOTS,
    PciBus,
    PciDevice,
    normalise_bdf,
    normalise_serial,
    normalise_serials,
    read_interface,
)
from . import forms
from .recorded import Recorded, find_recorded
from .selector_errors import describe, gone, no_match, not_a_pci_interface, selector_error

_FUNCTION = re.compile(r"^(.+)\.([0-7])$")


# --- by where it is ---


def _by_address(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    found: list[PciDevice] = []
    for low, high in forms.parse_addresses(value):
        found += [_at(low, bus, recorded)] if low == high else _in_range(low, high, bus, recorded)
    return found


def _at(address: str, bus: PciBus, recorded: list[Recorded]) -> PciDevice:
    device = bus.get(address)
    if device is not None:
        return device
    for record in recorded:
        if record.address == address:
            raise gone(record, address)
    raise no_match("the address %s" % address, bus)


def _in_range(low: str, high: str, bus: PciBus, recorded: list[Recorded]) -> list[PciDevice]:
    for record in recorded:
        if low <= record.address <= high and bus.get(record.address) is None:
            raise gone(record, record.address)
    devices = [device for device in bus if low <= device.address <= high]
    if not devices:
        raise no_match("an address from %s to %s" % (low, high), bus)
    return devices


def _by_slot(value: str, bus: PciBus, _recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    """Find what is in a physical slot, or (``4.1``) one function of it; virtual functions have no slot of their own."""
    name, function = value.strip(), None
    match = _FUNCTION.match(name)
    if match and name not in bus.slots:
        name, function = match.group(1), match.group(2)
    place = bus.slots.get(name)
    found = [
        device
        for device in bus
        # A card with a switch on it shows the switch in the slot, and its devices behind it.
        if place is not None
        and device.is_endpoint
        and device.physfn is None
        and any(part.startswith(place + ".") for part in device.real.split("/"))
        and function in (None, device.address[-1])
    ]
    if found:
        return found
    error = no_match("its place in the slot %s" % value.strip(), bus)
    error.evidence = ["%s/%s: %s" % (SLOTS, slot, bus.slots[slot]) for slot in sorted(bus.slots)] or [SLOTS + ": empty"]
    if place is not None:
        error.message = "The slot %s is empty, or lacks that function." % value.strip()
    raise error


# --- by what it is ---


def _by_vendor_device(value: str, bus: PciBus, recorded: list[Recorded], selector: dict[str, Any]) -> list[PciDevice]:
    wanted = forms.parse_vendor_device(value)
    subsystem = forms.parse_vendor_device(selector["subsystem"]) if selector.get("subsystem") else ""
    same = [device for device in bus if device.vendor_device == wanted]
    devices = [device for device in same if not subsystem or device.subsystem == subsystem]
    if devices:
        return devices
    for record in recorded:
        if record.vendor_device == wanted:
            raise gone(record, wanted)
    error = no_match("the vendor and device %s" % wanted, bus)
    if same:
        error.message = "No %s on this host has the subsystem %s." % (wanted, subsystem)
        error.evidence = ["available: %s subsystem %s" % (describe(device), device.subsystem) for device in same]
    raise error


def _by_serial(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    """Find every function with this number: the functions of a card often share one."""
    wanted = normalise_serial(value)
    found = {device.address: device for device in bus if wanted in normalise_serials(device.serials)}
    for record in recorded:
        if wanted in normalise_serials(record.serials):
            device = find_recorded(record, bus)
            if device is None:
                raise gone(record, "serial %s" % value)
            found.setdefault(device.address, device)
    if found:
        return list(found.values())
    error = no_match("the serial number %s" % value, bus)
    serials = ["%s serial %s" % (describe(device), ", ".join(device.serials)) for device in bus if device.serials]
    error.evidence = ["available: " + line for line in serials] or ["no device shows a serial number"]
    raise error


# --- by its interface ---


def _by_interface(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    name = value.strip()
    live = [device for device in bus if any(interface.name == name for interface in device.interfaces)]
    is_elsewhere = not live and bus.root.exists(NET, name)
    error = not_a_pci_interface(name, bus) if is_elsewhere else no_match("an interface named %s" % name, bus)
    return _only("interface %s" % name, live, [record for record in recorded if name in record.interfaces], bus, error)


def _by_mac(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    mac = forms.parse_mac(value)
    # An address can be set on several interfaces, but only one came with it.
    live = [device for device in bus if any(interface.permanent == mac for interface in device.interfaces)]
    live = live or [device for device in bus if any(interface.mac == mac for interface in device.interfaces)]
    records = [record for record in recorded if mac in record.macs]
    names = [] if live or records else _interfaces_with(mac, bus)
    error = not_a_pci_interface(names[0], bus) if names else no_match("the MAC " + mac, bus)
    return _only("MAC %s" % mac, live, records, bus, error)


def _interfaces_with(mac: str, bus: PciBus) -> list[str]:
    return [name for name in bus.root.listdir(NET) if read_interface(bus.root, name).mac == mac]


def _only(what: str, live: list[PciDevice], records: list[Recorded], bus: PciBus, error: HostError) -> list[PciDevice]:
    """Return the only device that has a name now or had it before it was bound."""
    # A device that shows interfaces again is known by those, not by what was recorded once.
    bound = [(record, find_recorded(record, bus)) for record in records]
    found = {device.address: device for device in live}
    found.update({device.address: device for _record, device in bound if device is not None and not device.interfaces})
    if len(found) > 1:
        # The kernel gives the name of a bound device to the next one, which is not the one that was meant.
        raise selector_error(
            "%s means %d devices." % (what, len(found)),
            evidence=["live: " + describe(device) for device in live]
            + ["before it was bound: %s" % record.address for record, device in bound if device is not None],
            remedy="Select the device by address instead.",
        )
    if found:
        return list(found.values())
    absent = [record for record, device in bound if device is None]
    raise gone(absent[0], what) if absent else error


# --- by its physical function ---


def find_physical(value: str, bus: PciBus, recorded: list[Recorded]) -> PciDevice:
    """Return a physical function by its address, MAC address or interface."""
    if forms.is_mac(value):
        return _by_mac(value, bus, recorded, {})[0]
    if ":" in value:
        return _at(normalise_bdf(value), bus, recorded)
    return _by_interface(value, bus, recorded, {})[0]


def _by_pf(value: str, bus: PciBus, recorded: list[Recorded], selector: dict[str, Any]) -> list[PciDevice]:
    pf = find_physical(value, bus, recorded)
    functions = bus.functions(pf)
    wanted = forms.parse_indexes(selector.get("vf") or [], sorted(functions))
    missing = [index for index in wanted if index not in functions]
    if functions and not missing:
        return [functions[index] for index in wanted]
    what = "virtual function %s" % ", ".join(map(str, missing)) if missing else "virtual functions"
    raise selector_error(
        "%s has no %s." % (pf.address, what),
        evidence=["virtual functions it has: %s" % (", ".join(map(str, sorted(functions))) or "none")],
        remedy="Correct the entry, or have them made: sriov (noiommu_sriov): [{pf: %s, vfs: NUMBER}]." % value,
    )


# By the name of the option; in the order in which the options are listed to an operator.
FINDERS: dict[str, Callable[[str, PciBus, list[Recorded], dict[str, Any]], list[PciDevice]]] = {
    "address": _by_address,
    "vendor_device": _by_vendor_device,
    "interface": _by_interface,
    "mac": _by_mac,
    "slot": _by_slot,
    "serial": _by_serial,
    "pf": _by_pf,
}
