# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of how everything on the host was before this collection first changed it."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

from .._base.fs import Root
from .._base.paths import BINDINGS, ORIGINALS
from .._base.records import dump_json, load_json
from .._base.schema import Schema, problems
from .._host.bars import read_naming
from .._host.iommu import UNSAFE_GROUP_NAMES, VFIO_DIR
from .._host.pci import PciBus, PciDevice, normalise_serials
from .._policy.kinds import DISK_DATA, DISK_MEMBER, PASSTHROUGH_DRIVERS
from .identity import identity, interface_state, macs_of, permanent_macs, replaced
from .recorded import Recorded
from .schemas import ORIGINAL, ORIGINAL_SRIOV
from .schemas import ORIGINALS as ORIGINALS_SCHEMA
from .sriov import kept_originals
from .steps import observe
from .vf_settings import Settings, from_record, merged, select, to_record

# In the record of a device whose original is not known: it is offered to the host's drivers.
NO_ORIGINAL: dict[str, Any] = {"driver": None, "driver_override": None, "probe": True}


class Originals:
    """The state of everything that was changed, as it was before the first change. A record is never overwritten."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        data = data or {}
        self.devices: dict[str, dict[str, Any]] = data.get("devices", {})
        self.parameters: dict[str, str] = data.get("parameters", {})
        self.modules: list[str] = data.get("modules", [])
        # Physical functions whose number of virtual ones was changed.
        self.sriov: dict[str, dict[str, Any]] = data.get("sriov", {})
        # What is wrong with which address's record: such a record is kept as it is, and nothing is done by it.
        self.damage: dict[str, str] = {}
        self._damaged: dict[str, dict[str, Any]] = {"devices": {}, "sriov": {}}
        for records, schema in ((self.devices, ORIGINAL), (self.sriov, ORIGINAL_SRIOV)):
            self._set_aside(records, schema, "sriov" if records is self.sriov else "devices")

    def _set_aside(self, records: dict[str, Any], schema: Schema, kind: str) -> None:
        for address, record in list(records.items()):
            wrong = problems(record, schema)
            if wrong:
                self.damage[address] = "%s: %s[%s]: %s" % (ORIGINALS, kind, address, "; ".join(map(str, wrong)))
                self._damaged[kind][address] = records.pop(address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Originals) and vars(self) == vars(other)

    @classmethod
    def load(cls, root: Root) -> Originals:
        """Read the file; nothing is recorded if there is none."""
        return cls(load_json(root, ORIGINALS, ORIGINALS_SCHEMA))

    def forget_damaged(self, address: str) -> None:
        """Drop an unusable record."""
        self.damage.pop(address, None)
        for records in self._damaged.values():
            records.pop(address, None)

    def _data(self) -> dict[str, Any]:
        return {
            "devices": {**self._damaged["devices"], **self.devices},
            "parameters": self.parameters,
            "modules": self.modules,
            "sriov": {**self._damaged["sriov"], **self.sriov},
        }

    def render(self) -> str | None:
        """Return the file's text, None if there is nothing to remember."""
        data = self._data()
        if not any(data.values()):
            return None
        return dump_json({key: value for key, value in data.items() if value or key != "sriov"})

    def copy(self) -> Originals:
        """Return an independent copy."""
        return Originals(json.loads(json.dumps(self._data())))

    def save(self, root: Root) -> None:
        """Write the file, or remove it if there is nothing to remember."""
        text = self.render()
        if text is None:
            root.remove_file(ORIGINALS)
            root.remove_empty_dir(os.path.dirname(ORIGINALS))
        else:
            root.write_file(ORIGINALS, text, 0o600)

    def record(self, device: PciDevice, bus: PciBus) -> str:
        """Record a device as it is now, unless it is recorded already.

        A record of a device that was replaced by one of the same kind is renewed, but for the driver to go back to.
        Return what shows the replacement, nothing if there is none.
        """
        known = self.devices.get(device.address)
        # Another device in the same slot is another device.
        if known is None or known["vendor_device"] != device.vendor_device:
            self.devices[device.address] = snapshot(device, bus)
            return ""
        replacement = replaced(device, bus, dict(known, macs=self.macs(device.address)))
        if replacement:
            kept: dict[str, Any] = {key: known[key] for key in ("driver", "driver_override", "probe") if key in known}
            renewed = {key: value for key, value in snapshot(device, bus).items() if key != "probe"}
            self.devices[device.address] = {**renewed, **kept}
        return replacement

    def record_sriov(self, pf: PciDevice, bus: PciBus, state: dict[str, Any]) -> None:
        """Record how a physical function made virtual ones, unless it is recorded already."""
        known = self.sriov.get(pf.address)
        if known is None or known["vendor_device"] != pf.vendor_device:
            self.sriov[pf.address] = {**_physical(pf, bus), **state}

    def record_settings(self, address: str, settings: Mapping[int, Settings]) -> None:
        """Record how virtual functions of a recorded physical one were set, what is recorded already excepted."""
        known = from_record(self.sriov[address])
        if settings:
            self.sriov[address]["functions"] = to_record(merged(settings, known))

    def forget_settings(self, address: str, still: Mapping[int, Settings], want: int) -> None:
        """Drop the recorded settings that are given back: all but those in ``still``, and those needed for later."""
        record = self.sriov[address]
        kept = kept_originals(record, want)
        held = {index: one for index, one in still.items() if index < want}
        left = select(from_record(record), lambda index, group: index in kept or group[0] in held.get(index, {}))
        record.pop("functions", None)
        if left:
            record["functions"] = to_record(left)

    def renew_sriov(self, pf: PciDevice, bus: PciBus) -> str:
        """Renew the record of a physical function that was replaced by one of the same kind, as :meth:`record` does."""
        known = self.sriov.get(pf.address)
        replacement = replaced(pf, bus, known) if known and known["vendor_device"] == pf.vendor_device else ""
        if replacement:
            self.sriov[pf.address] = {**(known or {}), **_physical(pf, bus)}
        return replacement

    def macs(self, address: str) -> list[str]:
        """Return the permanent MAC addresses of a recorded device."""
        return permanent_macs(self.devices[address]["interfaces"])

    def standing(self, guards: list[Any], device: PciDevice, bus: PciBus) -> list[Any]:
        """Return those of a device's guards that forbid binding it.

        What is on a disk that was bound before belongs to the data plane, which may make volumes of its own: after a
        boot, the host's driver shows them to udev before the device is bound again.
        """
        return [
            guard for guard in guards if guard.kind not in (DISK_MEMBER, DISK_DATA) or not self._was_bound(device, bus)
        ]

    def _was_bound(self, device: PciDevice, bus: PciBus) -> bool:
        """Whether a device was bound and not released, by a serial number that no other one like it shows."""
        records = [record for record in self.devices.values() if record["vendor_device"] == device.vendor_device]
        known = [normalise_serials(record["serials"]) for record in records if record.get("serials")]
        kind = (device.vendor_device, device.address[-1])
        alike = [normalise_serials(other.serials) for other in bus if (other.vendor_device, other.address[-1]) == kind]
        mine = normalise_serials(device.serials)
        return any(serials <= mine and sum(serials <= shown for shown in alike) == 1 for serials in known)

    def identities(self) -> list[Recorded]:
        """Return what selectors need to find a device whose interface is gone."""
        return [
            Recorded(
                address,
                record["vendor_device"],
                [interface["name"] for interface in record["interfaces"]],
                list(dict.fromkeys(macs_of(record["interfaces"]) + permanent_macs(record["interfaces"]))),
                tuple(record.get("serials", ())),
            )
            for address, record in self.devices.items()
        ]


def _physical(pf: PciDevice, bus: PciBus) -> dict[str, Any]:
    return dict(identity(pf, bus), macs=permanent_macs(interface_state(pf)))


def snapshot(device: PciDevice, bus: PciBus) -> dict[str, Any]:
    """Return what is needed to release a device and to recognise it."""
    known = dict(identity(device, bus), interfaces=interface_state(device))
    if is_ours(bus.root, device):
        # What a lost record, or somebody's hand, left behind is no original: the host's drivers will be offered it.
        return {**known, **NO_ORIGINAL}
    original: dict[str, Any] = dict(known, driver=device.driver, driver_override=device.driver_override)
    named = read_naming(bus.root, device.address).named
    if named:
        original["write_combining"] = list(named)
    return original


def is_ours(root: Root, device: PciDevice) -> bool:
    """Whether a device is bound by us, and with no driver of the host.

    An IOMMU's group shows nothing of it, and vfio-pci may be the original there: what else we left of it does.
    """
    state = observe(root, device)
    if state.driver not in (None, *PASSTHROUGH_DRIVERS):
        return False
    if state.in_module or state.group_name in UNSAFE_GROUP_NAMES or root.exists(VFIO_DIR, "by-address", device.address):
        return True
    return declared_at_boot(root).get(device.address) == device.vendor_device


def declared_at_boot(root: Root) -> dict[str, Any]:
    """Return the kinds of the devices that each boot binds, by address."""
    entries = (load_json(root, BINDINGS) or {}).get("devices")
    return {
        str(entry.get("address")): entry.get("vendor_device")
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    }
