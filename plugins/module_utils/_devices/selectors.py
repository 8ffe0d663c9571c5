# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what an operator wrote to PCI devices: by what they are, where they are, or what the host calls them."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterable, NamedTuple

from .._base.errors import HostError
from .._host.pci import NET, SLOTS, PciBus, PciDevice, normalise_bdf, read_interface

KINDS = ("address", "vendor_device", "interface", "mac", "slot", "serial", "pf")
# The argument spec of one entry, for every module that takes a list of devices.
ELEMENT_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        **{kind: {"type": "str"} for kind in KINDS},
        "subsystem": {"type": "str"},
        "vf": {"type": "list", "elements": "str"},
        "count": {"type": "int"},
    },
    "mutually_exclusive": [KINDS],
    "required_one_of": [KINDS],
    "required_by": {"subsystem": ["vendor_device"], "vf": ["pf"]},
}
_VENDOR_DEVICE = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{4}$")
_MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")
_INDEXES = re.compile(r"^(\d+)(?:-(\d+))?$")
_FUNCTION = re.compile(r"^(.+)\.([0-7])$")


class Recorded(NamedTuple):
    """How a device that was taken could be recognised while the host still drove it."""

    address: str
    vendor_device: str
    interfaces: list[str]
    macs: list[str]
    serials: tuple[str, ...] = ()


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
            shown = _shown(kind, value, selector)
            devices = {device.address: device for device in _RESOLVERS[kind](value, bus, recorded, selector)}
            _check_count(shown, list(devices.values()), selector.get("count"))
        except HostError as exc:
            errors.append(exc)
            continue
        for address in devices:
            if address in chosen:
                errors.append(_duplicate(address, chosen[address], shown))
            else:
                chosen[address] = shown
    errors += _destroyed([bus.devices[address] for address in chosen], bus)
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


def _shown(kind: str, value: str, selector: dict[str, Any]) -> str:
    text = "%s: %s" % (kind, value)
    if selector.get("subsystem"):
        text += ", subsystem: %s" % selector["subsystem"]
    if selector.get("vf"):
        text += ", vf: %s" % ",".join(selector["vf"])
    return text


def _check_count(shown: str, devices: list[PciDevice], count: int | None) -> None:
    if count is None or len(devices) == count:
        return
    raise HostError(
        "selector",
        "The entry %s means %d devices, and the declared count is %d." % (shown, len(devices), count),
        evidence=["matched: " + describe(device) for device in devices],
        remedy="Correct the entry or its count; if devices are missing, check the hardware (`lspci`, `dmesg`).",
    )


def _destroyed(chosen: list[PciDevice], bus: PciBus) -> list[HostError]:
    """A physical function that loses its driver loses its virtual ones."""
    return [
        HostError(
            "selector",
            "%s has %d virtual functions, which would be destroyed with it." % (device.address, len(functions)),
            evidence=["virtual function %d: %s" % (index, describe(one)) for index, one in sorted(functions.items())],
            remedy="Select its virtual functions instead, or give it none: sriov: [{pf: %s, vfs: 0}]." % device.address,
        )
        for device, functions in ((device, bus.functions(device)) for device in chosen)
        if functions
    ]


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
    if device.planned:
        return " ".join(words + ["virtual function %d of %s, to be made" % (device.planned[1], device.planned[0])])
    words += ["%s %s" % (interface.name, interface.mac) for interface in device.interfaces]
    return " ".join(words + ["driver %s" % (device.driver or "none")])


def _available(bus: PciBus) -> list[str]:
    """List the likely candidates: network controllers, or everything that is not a bridge."""
    endpoints = [device for device in bus if device.is_endpoint]
    shown = [device for device in endpoints if device.is_network] or endpoints
    return ["available: " + describe(device) for device in shown]


def _alive(record: Recorded, bus: PciBus) -> PciDevice | None:
    """Return the device that was recorded, if it is not gone or replaced by another one of its kind."""
    device = bus.get(record.address)
    if device is None or device.vendor_device != record.vendor_device:
        return None
    known, shown = plain_serials(record.serials), plain_serials(device.serials)
    return device if known <= shown or shown <= known else None


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


def _malformed(value: str, what: str, expected: str, where: str) -> HostError:
    return HostError(
        "selector",
        "%r is not %s." % (value, what),
        evidence=["expected " + expected],
        remedy="Write it as %s, in quotes." % where,
    )


def _by_address(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    found: list[PciDevice] = []
    for part in value.split(","):
        first, dash, last = part.partition("-")
        found += _in_range(first, last, bus, recorded) if dash else [_at(normalise_bdf(part), bus, recorded)]
    return found


def _at(address: str, bus: PciBus, recorded: list[Recorded]) -> PciDevice:
    device = bus.get(address)
    if device is not None:
        return device
    for record in recorded:
        if record.address == address:
            raise _gone(record, address)
    raise _no_match("the address %s" % address, bus)


def _in_range(first: str, last: str, bus: PciBus, recorded: list[Recorded]) -> list[PciDevice]:
    low, high = normalise_bdf(first), normalise_bdf(last)
    what = "an address from %s to %s" % (low, high)
    if low[:-8] != high[:-8] or low > high:
        raise _malformed(
            "%s-%s" % (first, last),
            "a range of PCI addresses",
            "two addresses of one domain, the lower one first",
            "0000:04:00.0-0000:04:00.3",
        )
    for record in recorded:
        if low <= record.address <= high and bus.get(record.address) is None:
            raise _gone(record, record.address)
    devices = [device for device in bus if low <= device.address <= high]
    if not devices:
        raise _no_match(what, bus)
    return devices


def _by_vendor_device(value: str, bus: PciBus, recorded: list[Recorded], selector: dict[str, Any]) -> list[PciDevice]:
    wanted, subsystem = value.strip().lower(), (selector.get("subsystem") or "").strip().lower()
    for text in filter(None, (wanted, subsystem)):
        if not _VENDOR_DEVICE.match(text):
            raise _malformed(
                text,
                "a vendor:device pair",
                "two numbers of four hexadecimal digits each, for example 8086:10d3",
                "`lspci -n` (`lspci -nv` for the subsystem) shows it",
            )
    same = [device for device in bus if device.vendor_device == wanted]
    devices = [device for device in same if not subsystem or device.subsystem == subsystem]
    if devices:
        return devices
    for record in recorded:
        if record.vendor_device == wanted:
            raise _gone(record, wanted)
    error = _no_match("the vendor and device %s" % wanted, bus)
    if same:
        error.message = "No %s on this host has the subsystem %s." % (wanted, subsystem)
        error.evidence = ["available: %s subsystem %s" % (describe(device), device.subsystem) for device in same]
    raise error


def _by_interface(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    name = value.strip()
    live = [device for device in bus if any(one.name == name for one in device.interfaces)]
    other = not live and bus.root.exists(NET, name)
    error = _not_of_pci(name, bus) if other else _no_match("an interface named %s" % name, bus)
    return _one("interface %s" % name, live, [r for r in recorded if name in r.interfaces], bus, error)


def _not_of_pci(name: str, bus: PciBus) -> HostError:
    path = bus.root.realpath(NET, name)
    usb = "/usb" in path.rpartition("/")[0]
    lowers = [entry[6:] for entry in bus.root.listdir(NET, name) if entry.startswith("lower_")]
    return HostError(
        "selector",
        "%s is no interface of a PCI device%s." % (name, ", but of a USB one" if usb else ""),
        evidence=["%s/%s -> %s" % (NET, name, path)] + ["below it: %s" % lower for lower in lowers],
        remedy="Name an interface of a PCI device: VFIO would take the USB controller with all that is plugged into it."
        if usb
        else "Name the physical interface.",
    )


def _by_mac(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    mac = value.strip().lower().replace("-", ":")
    if not _MAC.match(mac):
        raise _malformed(
            value,
            "a MAC address",
            "six pairs of hexadecimal digits, for example 52:54:00:12:34:56",
            "`ip link` shows it",
        )
    # Several may have been given an address that is one's own.
    live = [device for device in bus if any(one.permanent == mac for one in device.interfaces)]
    live = live or [device for device in bus if any(one.mac == mac for one in device.interfaces)]
    records = [record for record in recorded if mac in record.macs]
    known = live or records
    names = [] if known else [name for name in bus.root.listdir(NET) if read_interface(bus.root, name).mac == mac]
    error = _not_of_pci(names[0], bus) if names else _no_match("the MAC " + mac, bus)
    return _one("MAC %s" % mac, live, records, bus, error)


def _by_slot(value: str, bus: PciBus, _recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    """What sits in a physical slot, or (``4.1``) one function of it; virtual functions have no slot of their own."""
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
    error = _no_match("its place in the slot %s" % value.strip(), bus)
    error.evidence = ["%s/%s: %s" % (SLOTS, one, bus.slots[one]) for one in sorted(bus.slots)] or [SLOTS + ": empty"]
    if place is not None:
        error.message = "The slot %s is empty, or lacks that function." % value.strip()
    raise error


def plain_serial(text: str) -> str:
    """Return a serial number in the form in which two are compared."""
    return re.sub("[-: ]", "", text).lower()


def plain_serials(texts: Iterable[str]) -> set[str]:
    """Return several in that form."""
    return set(map(plain_serial, texts))


def _by_serial(value: str, bus: PciBus, recorded: list[Recorded], _selector: dict[str, Any]) -> list[PciDevice]:
    """Every function with this number: those of one card often have the same."""
    wanted = plain_serial(value)
    found = {device.address: device for device in bus if wanted in map(plain_serial, device.serials)}
    records = [record for record in recorded if wanted in map(plain_serial, record.serials)]
    for record in records:
        device = _alive(record, bus)
        if device is None:
            raise _gone(record, "serial %s" % value)
        found.setdefault(device.address, device)
    if found:
        return list(found.values())
    error = _no_match("the serial number %s" % value, bus)
    known = ["%s serial %s" % (describe(device), ", ".join(device.serials)) for device in bus if device.serials]
    error.evidence = ["available: " + line for line in known] or ["no device shows a serial number"]
    raise error


def find_physical(value: str, bus: PciBus, recorded: list[Recorded]) -> PciDevice:
    """Return a physical function by its address, MAC address or interface."""
    text = value.strip().lower()
    if _MAC.match(text.replace("-", ":")):
        return _by_mac(text, bus, recorded, {})[0]
    if ":" in text:
        return _at(normalise_bdf(text), bus, recorded)
    return _by_interface(value, bus, recorded, {})[0]


def _by_pf(value: str, bus: PciBus, recorded: list[Recorded], selector: dict[str, Any]) -> list[PciDevice]:
    pf = find_physical(value, bus, recorded)
    functions = bus.functions(pf)
    wanted = _indexes(selector.get("vf") or [], sorted(functions))
    missing = [index for index in wanted if index not in functions]
    if functions and not missing:
        return [functions[index] for index in wanted]
    what = "virtual function %s" % ", ".join(map(str, missing)) if missing else "virtual functions"
    raise HostError(
        "selector",
        "%s has no %s." % (pf.address, what),
        evidence=["virtual functions it has: %s" % (", ".join(map(str, sorted(functions))) or "none")],
        remedy="Correct the entry, or have them made: sriov (noiommu_sriov): [{pf: %s, vfs: NUMBER}]." % value,
    )


def _indexes(texts: list[str], every: list[int]) -> list[int]:
    found: list[int] = []
    for text in texts or ["all"]:
        match = _INDEXES.match(text.strip())
        low, high = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (0, 0)
        if text.strip() == "all":
            found += every
        elif match is None or low > high:
            raise _malformed(
                text,
                "an index of a virtual function",
                "a number, a range such as 0-3, or all",
                "/sys/bus/pci/devices/<pf>/virtfn<index> shows it",
            )
        else:
            found += range(low, high + 1)
    return sorted(set(found))


def _one(what: str, live: list[PciDevice], records: list[Recorded], bus: PciBus, error: HostError) -> list[PciDevice]:
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


_RESOLVERS: dict[str, Callable[[str, PciBus, list[Recorded], dict[str, Any]], list[PciDevice]]] = {
    "address": _by_address,
    "vendor_device": _by_vendor_device,
    "interface": _by_interface,
    "mac": _by_mac,
    "slot": _by_slot,
    "serial": _by_serial,
    "pf": _by_pf,
}
