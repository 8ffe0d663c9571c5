# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what an operator wrote to PCI devices: by address, vendor:device, interface or MAC address."""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple

from ._errors import HostError
from ._pci import PciBus, PciDevice, normalise_bdf

KINDS = ("address", "vendor_device", "interface", "mac")
# The argument spec of one entry, for every module that takes a list of devices.
ELEMENT_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {kind: {"type": "str"} for kind in KINDS},
    "mutually_exclusive": [KINDS],
    "required_one_of": [KINDS],
}
_VENDOR_DEVICE = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{4}$")
_MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")


class Recorded(NamedTuple):
    """How a device that was taken could be recognised while the host still drove it."""

    address: str
    vendor_device: str
    interfaces: list[str]
    macs: list[str]


def resolve(
    selectors: list[dict[str, Any]], bus: PciBus, recorded: list[Recorded]
) -> tuple[list[PciDevice], list[HostError]]:
    """Return the selected devices in bus order and an error for every entry that does not select properly.

    A device that was taken has no interface any more: it is then found by what was recorded of it.
    """
    chosen: dict[str, str] = {}
    errors: list[HostError] = []
    for selector in selectors:
        try:
            kind, value = _single(selector)
            devices = _RESOLVERS[kind](value, bus, recorded)
        except HostError as exc:
            errors.append(exc)
            continue
        shown = "%s: %s" % (kind, value)
        for device in devices:
            if device.address in chosen:
                errors.append(_duplicate(device.address, chosen[device.address], shown))
            else:
                chosen[device.address] = shown
    return [device for device in bus if device.address in chosen], errors


def _single(selector: dict[str, Any]) -> tuple[str, str]:
    given = [(kind, str(selector[kind])) for kind in KINDS if selector.get(kind) is not None]
    if len(given) != 1:
        raise HostError(
            "selector",
            "An entry of the device list must have exactly one of %s." % ", ".join(KINDS),
            evidence=[repr(selector)],
            remedy="Write one selector per entry.",
        )
    return given[0]


def _duplicate(address: str, first: str, second: str) -> HostError:
    return HostError(
        "selector",
        "%s is selected twice." % address,
        evidence=["by %s" % first, "by %s" % second],
        remedy="Remove one of the two entries from the device list.",
    )


def describe(device: PciDevice) -> str:
    """Return one line that lets an operator recognise a device."""
    words = [device.address, device.vendor_device]
    words += ["%s %s" % (interface.name, interface.mac) for interface in device.interfaces]
    return " ".join(words + ["driver %s" % (device.driver or "none")])


def _available(bus: PciBus) -> list[str]:
    """List the likely candidates: network controllers, or everything that is not a bridge."""
    endpoints = [device for device in bus if device.is_endpoint]
    shown = [device for device in endpoints if device.is_network] or endpoints
    return ["available: " + describe(device) for device in shown]


def _alive(record: Recorded, bus: PciBus) -> PciDevice | None:
    device = bus.get(record.address)
    return device if device is not None and device.vendor_device == record.vendor_device else None


def _gone(record: Recorded, what: str) -> HostError:
    return HostError(
        "selector",
        "%s was taken over by an earlier run, but it has disappeared from this host." % what,
        evidence=["recorded: %s %s, absent now" % (record.address, record.vendor_device)],
        remedy="Check the hardware (`dmesg`, `lspci`). If it was removed for good, remove it from the device list.",
    )


def _no_match(what: str, bus: PciBus) -> HostError:
    return HostError(
        "selector",
        "No PCI device on this host has %s." % what,
        evidence=_available(bus) or ["no PCI devices at all"],
        remedy="Correct the entry in the device list.",
    )


def _by_address(value: str, bus: PciBus, recorded: list[Recorded]) -> list[PciDevice]:
    address = normalise_bdf(value)
    device = bus.get(address)
    if device is not None:
        return [device]
    for record in recorded:
        if record.address == address:
            raise _gone(record, address)
    raise _no_match("the address %s" % address, bus)


def _by_vendor_device(value: str, bus: PciBus, recorded: list[Recorded]) -> list[PciDevice]:
    wanted = value.strip().lower()
    if not _VENDOR_DEVICE.match(wanted):
        raise HostError(
            "selector",
            "%r is not a vendor:device pair." % value,
            evidence=["expected two numbers of four hexadecimal digits each, for example 8086:10d3"],
            remedy="Write the pair as `lspci -n` shows it, in quotes.",
        )
    devices = [device for device in bus if device.vendor_device == wanted]
    if devices:
        return devices
    for record in recorded:
        if record.vendor_device == wanted:
            raise _gone(record, wanted)
    raise _no_match("the vendor and device %s" % wanted, bus)


def _by_interface(value: str, bus: PciBus, recorded: list[Recorded]) -> list[PciDevice]:
    name = value.strip()
    live = [device for device in bus if any(one.name == name for one in device.interfaces)]
    error = _no_match("an interface named %s" % name, bus)
    virtual = bus.root.exists("/sys/class/net", name) and not live
    if virtual:
        lowers = [entry[6:] for entry in bus.root.listdir("/sys/class/net", name) if entry.startswith("lower_")]
        error.message = "%s is no interface of a PCI device." % name
        error.evidence = ["/sys/class/net/%s -> %s" % (name, bus.root.realpath("/sys/class/net", name))]
        error.evidence += ["below it: %s" % lower for lower in lowers]
        error.remedy = "Name the physical interface."
    return _one("interface %s" % name, live, [r for r in recorded if name in r.interfaces], bus, error)


def _by_mac(value: str, bus: PciBus, recorded: list[Recorded]) -> list[PciDevice]:
    mac = value.strip().lower().replace("-", ":")
    if not _MAC.match(mac):
        raise HostError(
            "selector",
            "%r is not a MAC address." % value,
            evidence=["expected six pairs of hexadecimal digits, for example 52:54:00:12:34:56"],
            remedy="Write the address as `ip link` shows it, in quotes.",
        )
    live = [device for device in bus if any(one.mac == mac for one in device.interfaces)]
    return _one("MAC %s" % mac, live, [r for r in recorded if mac in r.macs], bus, _no_match("the MAC " + mac, bus))


def _one(
    what: str, live: list[PciDevice], records: list[Recorded], bus: PciBus, error: HostError
) -> list[PciDevice]:
    """Settle on the one device that has a name now or had it when it was taken."""
    # A device that shows interfaces again is known by those, not by what was recorded once.
    taken = [(record, _alive(record, bus)) for record in records]
    found = {device.address: device for device in live}
    for _record, device in taken:
        if device is not None and not device.interfaces:
            found[device.address] = device
    if len(found) > 1:
        # Kernel-given names move on when a device is taken: taking the next one would be the wrong one.
        raise HostError(
            "selector",
            "%s means %d devices." % (what, len(found)),
            evidence=["live: " + describe(device) for device in live]
            + ["when it was taken: %s" % record.address for record, device in taken if device is not None],
            remedy="Select the device by address instead.",
        )
    if found:
        return list(found.values())
    gone = [record for record, device in taken if device is None]
    raise _gone(gone[0], what) if gone else error


_RESOLVERS: dict[str, Callable[[str, PciBus, list[Recorded]], list[PciDevice]]] = {
    "address": _by_address,
    "vendor_device": _by_vendor_device,
    "interface": _by_interface,
    "mac": _by_mac,
}
