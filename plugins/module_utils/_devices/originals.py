# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is remembered on the host: how it was before (originals) and what each boot shall bring up (bindings)."""

from __future__ import annotations

import json
import os
from typing import Any

from .._base.fs import Root
from .._base.paths import ORIGINALS
from .._base.records import dump_json, load_json
from .._host.pci import PciBus, PciDevice
from .selectors import Recorded, plain_serials


class Originals:
    """The state of everything that was touched, as it was before the first touch. A record is never overwritten."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        data = data or {}
        self.devices: dict[str, dict[str, Any]] = data.get("devices", {})
        self.parameters: dict[str, str] = data.get("parameters", {})
        self.modules: list[str] = data.get("modules", [])
        # Physical functions whose number of virtual ones was changed.
        self.sriov: dict[str, dict[str, Any]] = data.get("sriov", {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Originals) and vars(self) == vars(other)

    @classmethod
    def load(cls, root: Root) -> Originals:
        """Read the file; nothing recorded if there is none."""
        return cls(load_json(root, ORIGINALS))

    def render(self) -> str | None:
        """Return the file's text, None if there is nothing to remember."""
        data = vars(self)
        if not any(data.values()):
            return None
        return dump_json({key: value for key, value in data.items() if value or key != "sriov"})

    def copy(self) -> Originals:
        """Return an independent copy."""
        return Originals(json.loads(json.dumps(vars(self))))

    def save(self, root: Root) -> None:
        """Write the file, or remove it if there is nothing to remember."""
        text = self.render()
        if text is None:
            root.remove_file(ORIGINALS)
            root.remove_empty_dir(os.path.dirname(ORIGINALS))
        else:
            root.write_file(ORIGINALS, text, 0o600)

    def record(self, device: PciDevice, bus: PciBus) -> None:
        """Remember a device as it is now, unless it is remembered already."""
        known = self.devices.get(device.address)
        # Another device in the same slot is another device.
        if known is None or known["vendor_device"] != device.vendor_device:
            self.devices[device.address] = snapshot(device, bus)

    def standing(self, guards: list[Any], device: PciDevice, bus: PciBus) -> list[Any]:
        """Return those of a device's guards that speak against taking it.

        What is on a disk that was taken before is the data plane's, which may make volumes of its own: after a boot, the
        host's driver shows them to udev before the device is taken again.
        """
        return [one for one in guards if one.kind != "disk_member" or not self._took(device, bus)]

    def _took(self, device: PciDevice, bus: PciBus) -> bool:
        """Whether a device was taken and not given back, by a serial number that no other one like it shows."""
        records = [one for one in self.devices.values() if one["vendor_device"] == device.vendor_device]
        known = [plain_serials(one["serials"]) for one in records if one.get("serials")]
        kind = (device.vendor_device, device.address[-1])
        alike = [plain_serials(one.serials) for one in bus if (one.vendor_device, one.address[-1]) == kind]
        mine = plain_serials(device.serials)
        return any(one <= mine and sum(one <= shown for shown in alike) == 1 for one in known)

    def record_sriov(self, pf: PciDevice, bus: PciBus, state: dict[str, Any]) -> None:
        """Remember how a physical function made virtual ones, unless it is remembered already."""
        known = self.sriov.get(pf.address)
        if known is None or known["vendor_device"] != pf.vendor_device:
            self.sriov[pf.address] = dict(identity(pf, bus), **state, macs=permanent_macs(interface_state(pf)))

    def identities(self) -> list[Recorded]:
        """Return what selectors need to find a device whose interface is gone."""
        return [
            Recorded(
                address,
                entry["vendor_device"],
                [one["name"] for one in entry["interfaces"]],
                list(dict.fromkeys(macs_of(entry["interfaces"]) + permanent_macs(entry["interfaces"]))),
                tuple(entry.get("serials", ())),
            )
            for address, entry in self.devices.items()
        ]


def snapshot(device: PciDevice, bus: PciBus) -> dict[str, Any]:
    """Return what is needed to put a device back and to recognise it."""
    return dict(
        identity(device, bus),
        driver=device.driver,
        driver_override=device.driver_override,
        interfaces=interface_state(device),
    )


def identity(device: PciDevice, bus: PciBus) -> dict[str, Any]:
    """Return what a device is known by besides its address and its interfaces; nothing that it lacks."""
    found: dict[str, Any] = {"vendor_device": device.vendor_device}
    pf = bus.get(device.physfn or "")
    if pf is not None:
        index = next((index for index, one in bus.functions(pf).items() if one.address == device.address), None)
        found["vf"] = {"pf": pf.address, "macs": permanent_macs(interface_state(pf)), "index": index}
        return found
    slot = bus.slot_of(device)
    found.update({key: value for key, value in (("serials", device.serials), ("slot", slot)) if value})
    return found


def recorded_as(entry: dict[str, Any], record: dict[str, Any] | None) -> bool:
    """Whether an entry of the bindings and an original are of one device, wherever it was."""
    if record is None or entry["vendor_device"] != record["vendor_device"]:
        return False
    if "vf" in entry or "vf" in record:
        return _function(entry) == _function(record)
    macs = record.get("macs") if "vfs" in record else permanent_macs(record["interfaces"])
    return entry["macs"] == macs and all(entry.get(key) == record.get(key) for key in ("serials", "slot"))


def _function(about: dict[str, Any]) -> tuple | None:
    vf = about.get("vf")
    return (vf["macs"] or vf["pf"], vf["index"]) if vf else None


def macs_of(interfaces: list[dict[str, Any]]) -> list[str]:
    """Return the MAC addresses in a record of interfaces, as an operator saw them."""
    return [one["mac"] for one in interfaces if one["mac"]]


def permanent_macs(interfaces: list[dict[str, Any]]) -> list[str]:
    """Return the MAC addresses by which a record of interfaces is known at the next boot."""
    return [mac for mac in map(permanent_mac, interfaces) if mac]


def permanent_mac(recorded: dict[str, Any]) -> str | None:
    """Return the one of a recorded interface."""
    return recorded.get("permanent", recorded["mac"])


def interface_state(device: PciDevice) -> list[dict[str, Any]]:
    """Return what an interface loses with its driver and gets back; its permanent address if that is another one."""
    return [
        dict(
            {"name": one.name, "mac": one.mac, "up": one.up, "mtu": one.mtu},
            **({} if one.permanent == one.mac else {"permanent": one.permanent}),
        )
        for one in device.interfaces
    ]
