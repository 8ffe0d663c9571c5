# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The identity of a device, and how recorded devices are found again wherever they are now."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Callable, Iterable, NamedTuple

from .._base.fs import Root
from .._host.pci import PciBus, PciDevice, normalise_serials
from .._policy.kinds import PASSTHROUGH_DRIVERS

# --- identity ---


def identity(device: PciDevice, bus: PciBus) -> dict[str, Any]:
    """Return what identifies a device besides its address and interfaces; absent properties are left out."""
    found: dict[str, Any] = {"vendor_device": device.vendor_device}
    pf = bus.get(device.physfn or "")
    if pf is not None:
        index = next((index for index, vf in bus.functions(pf).items() if vf.address == device.address), None)
        found["vf"] = {"pf": pf.address, "macs": permanent_macs(interface_state(pf)), "index": index}
        return found
    slot = bus.slot_of(device)
    found.update({key: value for key, value in (("serials", device.serials), ("slot", slot)) if value})
    return found


def interface_state(device: PciDevice) -> list[dict[str, Any]]:
    """Return what an interface loses with its driver; its permanent address only if that differs."""
    return [
        dict(
            {"name": interface.name, "mac": interface.mac, "up": interface.up, "mtu": interface.mtu},
            **({} if interface.permanent == interface.mac else {"permanent": interface.permanent}),
        )
        for interface in device.interfaces
    ]


def macs_of(interfaces: list[dict[str, Any]]) -> list[str]:
    """Return the MAC addresses in a record of interfaces, as an operator saw them."""
    return [interface["mac"] for interface in interfaces if interface["mac"]]


def permanent_macs(interfaces: list[dict[str, Any]]) -> list[str]:
    """Return the MAC addresses by which recorded interfaces are recognised at the next boot."""
    return [mac for mac in map(permanent_mac, interfaces) if mac]


def permanent_mac(interface: dict[str, Any]) -> str | None:
    """Return the permanent MAC address of a recorded interface."""
    mac: str | None = interface.get("permanent", interface["mac"])
    return mac


def contradiction(device: PciDevice, entry: dict[str, Any]) -> str:
    """Say what shows that a device is not the recorded one; nothing if it may be."""
    macs = entry["macs"]
    if macs and device.interfaces and not any(interface.permanent in macs for interface in device.interfaces):
        return "another MAC is there: %s" % device.mac
    # A disk's driver shows one more, which may be missing on either side.
    known, shown = normalise_serials(entry.get("serials", [])), normalise_serials(device.serials)
    if known and not (known <= shown or shown <= known):
        return "another serial number is there: %s" % ", ".join(device.serials)
    return ""


def replaced(device: PciDevice, bus: PciBus, entry: dict[str, Any]) -> str:
    """Say what shows that a device was replaced by another one of the same kind; nothing if it was not.

    Only permanent properties count: a MAC address that the driver made up or that somebody set does not.
    """
    if "vf" in entry:
        pf = bus.get(device.physfn or "")
        return _another_card(pf, entry["vf"]["macs"]) if pf is not None else ""
    return _another_card(device, entry["macs"]) or contradiction(device, dict(entry, macs=[]))


def _another_card(device: PciDevice, macs: list[str]) -> str:
    shown = [interface.permanent for interface in device.interfaces if interface.permanent]
    return "another MAC is there: %s" % shown[0] if shown and macs and not set(shown) & set(macs) else ""


def recorded_as(entry: dict[str, Any], record: dict[str, Any] | None) -> bool:
    """Whether an entry of the bindings and an original are of the same device, wherever it was."""
    if record is None or entry["vendor_device"] != record["vendor_device"]:
        return False
    if "vf" in entry or "vf" in record:
        return _function(entry) == _function(record)
    macs = record.get("macs") if "vfs" in record else permanent_macs(record["interfaces"])
    return bool(entry["macs"] == macs) and all(entry.get(key) == record.get(key) for key in ("serials", "slot"))


def _function(about: dict[str, Any]) -> tuple[Any, Any] | None:
    vf = about.get("vf")
    return (vf["macs"] or vf["pf"], vf["index"]) if vf else None


# --- finding recorded devices again ---


class Match(NamedTuple):
    """The device that an entry means now. ``note`` says why there is none, or what to log about it."""

    device: PciDevice | None
    note: str = ""
    is_final: bool = True  # False: it may change after waiting


def identify(bus: PciBus, entries: list[dict[str, Any]], driver: str | None, others: Iterable[str] = ()) -> list[Match]:
    """Find recorded devices: by MAC, serial number or slot where one is known, else by address.

    All entries are matched at once, because no device may match two. ``others``: the addresses of declared devices that
    are not among the entries.
    """
    known = [_by_identity(bus, entry, driver) for entry in entries]
    places = Counter(match.device.address for match in known if match is not None and match.device is not None)
    unknown = {entry["address"] for entry, match in zip(entries, known) if match is None}

    def settle(entry: dict[str, Any], match: Match | None) -> Match:
        if match is None and (entry["address"] in places or "original" in entry):  # see follow()
            return Match(None, "another declared device is there", is_final=False)
        if match is None:
            return _at_its_address(bus, entry, driver, (unknown - {entry["address"]}).union(places, others))
        if match.device is not None and places[match.device.address] > 1:
            return Match(None, "several declared devices could be " + match.device.address, is_final=False)
        return match

    return [settle(entry, match) for entry, match in zip(entries, known)]


def _by_identity(bus: PciBus, entry: dict[str, Any], driver: str | None) -> Match | None:
    """Find a device by what it is and not by where it is; None if that does not tell."""
    if "vf" in entry:
        return _identify_function(bus, entry)
    macs = set(entry["macs"])
    by_mac = [device for device in bus if any(interface.permanent in macs for interface in device.interfaces)]
    if len(by_mac) > 1:
        return Match(None, "several devices have its MAC: " + _listed(by_mac))
    if by_mac:
        return _found(entry, by_mac[0], "MAC")
    # Some vendors give all their cards the same number.
    by_serial = [device for device in _with_serial(bus, entry) if not contradiction(device, entry)]
    if len(by_serial) == 1:
        is_sure = not macs or (driver is not None and by_serial[0].driver == driver)
        return _found(entry, by_serial[0], "serial number")._replace(is_final=is_sure)
    in_slot = [] if macs else _in_slot(bus, entry)
    return _found(entry, in_slot[0], "slot") if len(in_slot) == 1 else None


def _at_its_address(bus: PciBus, entry: dict[str, Any], driver: str | None, others: set[str]) -> Match:
    """Return the device at the recorded address, unless it contradicts the entry or another device could be meant.

    Before the network is configured, no guard recognises the device that the host is managed through; if bus numbers
    changed, it may be at this address. A device's function number does not change with them.
    """
    device, serials = bus.get(entry["address"]), entry.get("serials")
    if device is None:
        return Match(None, "no such device", is_final=False)
    if device.vendor_device != entry["vendor_device"]:
        return Match(None, _another_kind(device, entry), is_final=not (entry["macs"] or serials))
    rivals = [
        rival
        for rival in _alike(bus, entry)
        if rival.address != device.address
        and rival.address not in others
        and not contradiction(rival, entry)
        and (rival.driver is None or rival.driver != driver)
    ]
    contradicting = contradiction(device, entry)
    if contradicting:
        return Match(None, contradicting, is_final=not entry["macs"] and not rivals)
    if (device.driver is not None and device.driver == driver) or (not entry["macs"] and not serials):
        return Match(device)
    unchecked = "its serial number could not be checked: its driver does not show it"
    if entry["macs"]:
        unchecked = "its MAC could not be checked: it has no interface"
    if rivals:
        return Match(None, "%s, and it could as well be %s" % (unchecked, _listed(rivals)), is_final=False)
    return Match(device, unchecked, is_final=False)


def _found(entry: dict[str, Any], device: PciDevice, name: str) -> Match:
    return Match(device, "" if device.address == entry["address"] else "found by its %s at %s" % (name, device.address))


def _alike(bus: PciBus, entry: dict[str, Any]) -> list[PciDevice]:
    """Return the devices of the same kind that are the same function of their card."""
    kind = (entry["vendor_device"], entry["address"][-1])
    return [device for device in bus if (device.vendor_device, device.address[-1]) == kind]


def _with_serial(bus: PciBus, entry: dict[str, Any]) -> list[PciDevice]:
    wanted = normalise_serials(entry.get("serials", []))
    return [device for device in _alike(bus, entry) if wanted and wanted <= normalise_serials(device.serials)]


def _in_slot(bus: PciBus, entry: dict[str, Any]) -> list[PciDevice]:
    if "slot" not in entry or entry.get("serials"):
        return []
    return [device for device in _alike(bus, entry) if bus.slot_of(device) == entry["slot"]]


def _identify_function(bus: PciBus, entry: dict[str, Any]) -> Match:
    """Find a virtual function by its physical one and its index: it may get a new MAC address at every boot.

    It may not exist yet: udev, or a driver that loads late, may still create it.
    """
    vf = entry["vf"]
    by_mac = [
        device
        for device in bus
        if device.physfn is None and any(interface.permanent in vf["macs"] for interface in device.interfaces)
    ]
    if len(by_mac) > 1:
        return Match(None, "several devices have its physical function's MAC: " + _listed(by_mac), is_final=False)
    pf = by_mac[0] if by_mac else bus.get(vf["pf"])
    if pf is not None and not by_mac and vf["macs"] and pf.interfaces:
        return Match(None, "another physical function is at %s: its MAC is %s" % (pf.address, pf.mac), is_final=False)
    device = bus.functions(pf).get(vf["index"]) if pf is not None else None
    if device is None:
        address = pf.address if pf is not None else vf["pf"]
        return Match(None, "%s has no virtual function %d" % (address, vf["index"]), is_final=False)
    if device.vendor_device != entry["vendor_device"]:
        return Match(None, _another_kind(device, entry), is_final=False)
    return _found(entry, device, "physical function")


def _listed(devices: list[PciDevice]) -> str:
    return ", ".join(device.address for device in devices)


def _another_kind(device: PciDevice, entry: dict[str, Any]) -> str:
    return "another device is there: %s instead of %s" % (device.vendor_device, entry["vendor_device"])


def locate(
    root: Root,
    entries: list[dict[str, Any]],
    driver: str | None,
    is_worth_waiting: Callable[[], bool],
    others: Iterable[str] = (),
) -> tuple[list[Match], PciBus]:
    """Identify devices, waiting for missing ones as long as that is worthwhile. Return the bus last seen, too."""
    while True:
        is_last = not is_worth_waiting()
        bus = PciBus(root)
        matches = identify(bus, entries, driver, others)
        if is_last or all(map(_is_settled, entries, matches)):
            return matches, bus
        time.sleep(0.2)


def awaited(bus: PciBus, entry: dict[str, Any], is_loading: bool) -> list[PciDevice]:
    """Return the devices that could be the entry's, but whose host driver has not shown their identity yet.

    A device without a driver will not show it, unless drivers are still being loaded. A virtual function is announced
    when it is created.
    """
    if "vf" in entry:
        return []
    return [
        device
        for device in _alike(bus, entry)
        if (is_loading if device.driver is None else device.driver not in PASSTHROUGH_DRIVERS)
        and not contradiction(device, entry)
        and (not device.interfaces if entry["macs"] else _hides_serial(device, entry))
    ]


def _hides_serial(device: PciDevice, entry: dict[str, Any]) -> bool:
    return not normalise_serials(entry.get("serials", [])) <= normalise_serials(device.serials)


def _is_settled(entry: dict[str, Any], match: Match) -> bool:
    # Only its driver can create a physical function's virtual ones.
    return match.is_final and not ("vfs" in entry and match.device is not None and match.device.driver is None)


def follow(found: list[tuple[dict[str, Any], Match]], before: dict[str, Any]) -> dict[str, Any]:
    """Update the entries of devices that moved, and return their records under the new addresses.

    All at once, as one device may be where another was. A killed run may have saved the originals and not the bindings:
    the identity in a record tells which device it belongs to.
    """
    places = {match.device.address for _entry, match in found if match.device}
    left = {entry["address"] for entry, match in found if match.device}
    records = {address: record for address, record in before.items() if address not in places | left}
    for entry, match in found:
        old = entry["address"]
        if match.device is not None:
            new = entry["address"] = match.device.address
            candidates = [before.get(new), before.get(old), entry.pop("original", None)]
            own = next((record for record in candidates if recorded_as(entry, record)), None)
            if own is None and not any(recorded_as(other, before.get(old)) for other, _match in found):
                own = before.get(old)
            if own is not None:
                records[new] = own
            for about in (entry, own or {}):
                if "vf" in about and match.device.physfn is not None:
                    about["vf"]["pf"] = match.device.physfn
        elif old in places:
            # Another device is at its address, and it may be back at the next boot.
            entry.setdefault("original", before.get(old) if recorded_as(entry, before.get(old)) else None)
    return records
