# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many virtual functions each physical one has and shall have, and what they will be before they exist."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host.pci import PciBus, PciDevice
from .finders import find_physical
from .recorded import Recorded
from .selector_errors import describe

ELEMENT_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {"pf": {"type": "str", "required": True}, "vfs": {"type": "int", "required": True}},
}
NUMBER, AUTOPROBE, TOTAL = "sriov_numvfs", "sriov_drivers_autoprobe", "sriov_totalvfs"


class VfPlan(NamedTuple):
    """One physical function, and the number of virtual ones it shall have."""

    pf: PciDevice
    now: int
    want: int
    record: dict[str, Any] | None = None  # the original to go back to, for one that is declared no more

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.now != self.want

    @property
    def down(self) -> list[str]:
        """The physical function's interfaces that must be up: some drivers make nothing while theirs is down.

        And without it, no virtual function has a link.
        """
        return [link.name for link in self.pf.interfaces if not link.up] if self.changes and self.want else []

    def __str__(self) -> str:
        return "%s: set the number of virtual functions from %d to %d" % (self.pf.address, self.now, self.want)


def count(root: Root, pf: PciDevice) -> int:
    """Return how many virtual functions a physical one has."""
    return root.read_int(pf.path, NUMBER) or 0


def plan_functions(
    root: Root, bus: PciBus, declared: list[dict[str, Any]], recorded: list[Recorded], originals: dict[str, Any]
) -> tuple[list[VfPlan], list[HostError]]:
    """Return what to do and every reason against it, and have ``bus`` show the virtual functions as they will be."""
    plans: dict[str, VfPlan] = {}
    errors: list[HostError] = []
    for entry in declared:
        try:
            pf = find_physical(entry["pf"], bus, recorded)
            _check(root, pf, entry["vfs"], pf.address in plans)
        except HostError as exc:
            errors.append(exc)
            continue
        plans[pf.address] = VfPlan(pf, count(root, pf), entry["vfs"])
    for address, record in sorted(originals.items()):
        recorded_pf = bus.get(address)
        if address in plans or recorded_pf is None or recorded_pf.vendor_device != record["vendor_device"]:
            continue
        plans[address] = VfPlan(recorded_pf, count(root, recorded_pf), record["vfs"], record)
    for plan in plans.values():
        if plan.changes:
            bus.plan_functions(plan.pf, predict(root, plan.pf, plan.want))
    return list(plans.values()), errors


def _check(root: Root, pf: PciDevice, wanted: int, twice: bool) -> None:
    total = root.read_int(pf.path, TOTAL)
    path = "%s/%s" % (pf.path, TOTAL)
    if total is None:
        raise HostError(
            "sriov",
            "%s cannot have virtual functions." % pf.address,
            evidence=["%s: absent" % path, describe(pf)],
            remedy="Enable SR-IOV in the firmware setup and in the card's own configuration, or choose another device.",
        )
    if not 0 <= wanted <= total:
        raise HostError(
            "sriov",
            "%s can have 0 to %d virtual functions, and %d are declared." % (pf.address, total, wanted),
            evidence=["%s: %d" % (path, total)],
            remedy="Declare fewer, or raise the limit in the card's own configuration.",
        )
    if twice:
        raise HostError(
            "sriov",
            "The virtual functions of %s are declared twice." % pf.address,
            evidence=[describe(pf)],
            remedy="Remove one of the entries.",
        )


def predict(root: Root, pf: PciDevice, number: int) -> dict[int, PciDevice]:
    """Return virtual functions that do not exist yet, as far as the physical one tells what they will be."""
    offset, stride = (root.read_int(pf.path, name) for name in ("sriov_offset", "sriov_stride"))
    # sysfs writes it without 0x.
    device_id = (root.read_text(pf.path, "sriov_vf_device") or "").rjust(4, "0")
    found = {}
    for index in range(number):
        device = PciDevice(root, _address(pf, index, offset, stride), planned=(pf.address, index))
        vars(device).update(vendor=pf.vendor, device=device_id, class_code=pf.class_code, serials=[], interfaces=[])
        found[index] = device
    return found


def _address(pf: PciDevice, index: int, offset: int | None, stride: int | None) -> str:
    # The specification lets both be 0 as long as there are no virtual functions.
    if not offset or (index and not stride):
        return "%s-vf%d" % (pf.address, index)
    domain, bus, rest = pf.address.split(":")
    slot, function = rest.split(".")
    number = (int(bus, 16) << 8) + (int(slot, 16) << 3) + int(function) + offset + index * (stride or 0)
    return "%s:%02x:%02x.%d" % (domain, number >> 8, number >> 3 & 0x1F, number & 7)


def losses(plans: list[VfPlan], bus: PciBus) -> list[tuple[PciDevice, PciDevice]]:
    """Return (physical, virtual) for the functions that exist and do not survive: the number changes only through 0."""
    found = []
    for plan in plans:
        if plan.changes and plan.now:
            present = ((index, PciDevice(bus.root, address)) for index, address in sorted(plan.pf.functions.items()))
            found += [(plan.pf, device) for _index, device in present]
    return found
