# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices are released: recorded but not declared, replaced, or without a usable record."""

from __future__ import annotations

from .._base.errors import HostError
from .._base.paths import ORIGINALS
from .._devices.control import Kernel
from .._devices.held import in_use
from .._devices.originals import NO_ORIGINAL, Originals, declared_at_boot, is_ours
from .._devices.steps import observe, plan, release_target
from .._host.pci import PciBus, PciDevice
from .._policy.kinds import PASSTHROUGH_DRIVERS
from .moves import Move
from .refusals import leaving


class ReleasePlan:
    """The releases of one call. It prepares the new records in ``originals``, and changes nothing on the host."""

    def __init__(self, present: PciBus, recorded: Originals, originals: Originals) -> None:
        self._root, self._present = present.root, present
        self._recorded, self._originals = recorded, originals
        self.messages: list[str] = []
        self.warnings: list[str] = []

    def moves(self, declared: dict[str, str], lost: set[str], driver: str) -> list[Move]:
        """Plan the moves; ``declared`` has each declared device's vendor and device number by its address."""
        records = sorted(self._recorded.devices.items())
        addresses = [address for address, record in records if declared.get(address) != record["vendor_device"]]
        addresses += self._damaged() + self._unrecorded(set(declared))
        moves = [self._move(address, lost, driver) for address in addresses]
        return [move for move in moves if move is not None]

    def _move(self, address: str, lost: set[str], driver: str) -> Move | None:
        """Plan to release one device, or remove the record of one that is gone."""
        record, device = self._originals.devices[address], self._present.get(address)
        if device is None or device.vendor_device != record["vendor_device"]:
            del self._originals.devices[address]
            self.messages.append("%s is gone from this host; its record is removed." % address)
            return None
        now, want = observe(self._root, device), release_target(record)
        if address in lost:
            want = release_target({"driver": None, "driver_override": None})
        elif now.driver not in (None, record["driver"], driver, now.driver_override):
            # Somebody else bound it to a third driver meanwhile: only our own changes are undone.
            if not record.get("probe"):
                self.messages.append("%s is bound to %s by somebody else and stays there." % (address, now.driver))
            want = want._replace(driver=now.driver, in_module=now.in_module)
        return Move(device, now, want, plan(now, want), record, address in lost)

    def _damaged(self) -> list[str]:
        """Remove damaged records, and return their devices, to be released to whichever driver matches them."""
        addresses = []
        for address, damage in self._recorded.damage.items():
            self._originals.forget_damaged(address)
            self.warnings.append(
                "The original state of %s is not known, as its record is damaged: %s." % (address, damage)
            )
            device = self._present.get(address)
            # The record shows that it was bound by us, although not what it was before.
            if device is not None and (is_ours(self._root, device) or device.driver in PASSTHROUGH_DRIVERS):
                addresses.append(self._without_original(device))
        return addresses

    def _unrecorded(self, declared: set[str]) -> list[str]:
        """Return the devices that each boot binds, that are declared no more, and of which the originals are lost."""
        known = {*declared, *self._recorded.devices, *self._recorded.damage}
        lost = [self._present.get(address) for address in declared_at_boot(self._root) if address not in known]
        addresses = [self._without_original(device) for device in lost if device and is_ours(self._root, device)]
        for address in addresses:
            self.warnings.append("The original of %s is not known: %s has no record of it." % (address, ORIGINALS))
        return addresses

    def _without_original(self, device: PciDevice) -> str:
        self._originals.devices[device.address] = {
            "vendor_device": device.vendor_device,
            **NO_ORIGINAL,
            "interfaces": [],
        }
        return device.address


def obstructed(kernel: Kernel, moves: list[Move], hanging: dict[str, HostError]) -> dict[str, str]:
    """Return which devices cannot be released now, and why. They must not hold up the others."""
    releasing = [move for move in moves if not move.is_lost]
    errors = {**hanging, **in_use(kernel, leaving([move for move in releasing if move.device.address not in hanging]))}
    blocking = {move.device.address: errors.get(move.device.address) for move in releasing}
    return {address: " ".join([error.message, *error.evidence]) for address, error in blocking.items() if error}
