# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many virtual functions each physical one has and shall have, with which settings, and what they will be."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host.pci import NET, Interface, PciBus, PciDevice
from .finders import find_physical
from .recorded import Recorded
from .selector_errors import describe
from .vf_settings import ELEMENT_SPEC as FUNCTIONS_SPEC
from .vf_settings import (
    Settings,
    declared_settings,
    differences,
    from_record,
    in_words,
    merged,
    problems,
    repeated_macs,
    select,
)

ELEMENT_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "pf": {"type": "str", "required": True},
        "vfs": {"type": "int", "required": True},
        "functions": FUNCTIONS_SPEC,
    },
}
# How a switch's ports for virtual functions are named; they sit on the physical one, too.
_REPRESENTOR = re.compile(r"(^|pf\d+)(vf|sf)\d+$")
NUMBER, AUTOPROBE, TOTAL = "sriov_numvfs", "sriov_drivers_autoprobe", "sriov_totalvfs"


class VfPlan(NamedTuple):
    """One physical function, and the number of virtual ones it shall have."""

    pf: PciDevice
    now: int
    want: int
    record: dict[str, Any] | None = None  # the original to go back to, for one that is declared no more
    settings: Mapping[int, Settings] = {}  # of single virtual functions, which each boot sets
    restore: Mapping[int, Settings] = {}  # the originals of those that are declared no more
    found: Mapping[int, Settings] = {}  # those that there are

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.now != self.want

    @property
    def wanted(self) -> dict[int, Settings]:
        """The settings that this run leaves."""
        return {index: one for index, one in merged(self.restore, self.settings).items() if index < self.want}

    @property
    def to_set(self) -> dict[int, Settings]:
        """Those of them that must be set; what new virtual functions begin with is not known."""
        return differences(self.wanted, {} if self.changes else self.found)

    @property
    def steps(self) -> list[str]:
        """What will be set, in words."""
        return [
            "%s: virtual function %d: set %s" % (self.pf.address, index, in_words(settings))
            for index, settings in self.to_set.items()
        ]

    def report(self, number: int, settings: Mapping[int, Settings]) -> dict[str, Any]:
        """Return what module results show of it, with those of the settings that this run is about."""
        shown = [
            dict({key: settings[index][key] for key in wanted}, vf=index)
            for index, wanted in self.wanted.items()
            if index in settings and index < number
        ]
        return dict({"pf": self.pf.address, "vfs": number}, **({"functions": shown} if shown else {}))

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


def interface_of(root: Root, pf: PciDevice) -> Interface | None:
    """Return the interface through which a physical function's driver is told about the virtual ones."""
    named = ((link, root.read_text(NET, link.name, "phys_port_name") or "") for link in pf.interfaces)
    return next((link for link, port in named if link.ifindex is not None and not _REPRESENTOR.search(port)), None)


def read_settings(root: Root, pf: PciDevice) -> dict[int, Settings]:
    """Return the settings of a physical function's virtual ones, as its driver tells them."""
    # Most hosts set nothing of virtual functions.
    from .._host import vf_netlink

    link = interface_of(root, pf)
    return vf_netlink.read(root, link.ifindex) if link is not None and link.ifindex is not None else {}


def plan_functions(
    root: Root, bus: PciBus, declared: list[dict[str, Any]], recorded: list[Recorded], originals: dict[str, Any]
) -> tuple[list[VfPlan], list[HostError]]:
    """Return what to do and every reason against it, and have ``bus`` show the virtual functions as they will be."""
    plans: dict[str, VfPlan] = {}
    errors: list[HostError] = []
    for position, entry in enumerate(declared):
        try:
            pf = find_physical(entry["pf"], bus, recorded)
            _check(root, pf, entry["vfs"], pf.address in plans)
            _check_settings(root, pf, entry, position)
            plans[pf.address] = _plan_declared(root, pf, entry, _record_of(pf, originals))
        except HostError as exc:
            errors.append(exc)
    repeated = repeated_macs((plan.pf.address, plan.settings) for plan in plans.values())
    if repeated:
        errors.append(_wrong_settings("A MAC address is declared for more than one virtual function.", repeated))
    for address in sorted(originals):
        recorded_pf = bus.get(address)
        record = _record_of(recorded_pf, originals) if recorded_pf is not None else None
        if recorded_pf is not None and record is not None and address not in plans:
            plans[address] = _plan_release(root, recorded_pf, record)
    for plan in plans.values():
        if plan.changes:
            bus.plan_functions(plan.pf, predict(root, plan.pf, plan.want))
    return list(plans.values()), errors


def _record_of(pf: PciDevice, originals: dict[str, Any]) -> dict[str, Any] | None:
    record: dict[str, Any] | None = originals.get(pf.address)
    return record if record is not None and record["vendor_device"] == pf.vendor_device else None


def _plan_declared(root: Root, pf: PciDevice, entry: dict[str, Any], record: dict[str, Any] | None) -> VfPlan:
    now, want = count(root, pf), entry["vfs"]
    declared = declared_settings(entry.get("functions") or [], want)
    original, kept = from_record(record or {}), kept_originals(record, want)
    restore = select(original, lambda index, group: index not in kept and group[0] not in declared.get(index, {}))
    plan = VfPlan(
        pf,
        now,
        want,
        settings=merged(select(original, lambda index, group: index in kept and index < want), declared),
        restore=restore if interface_of(root, pf) is not None else {},  # without one nobody can be told
        found=read_settings(root, pf) if now and (declared or original or now != want) else {},
    )
    if not plan.changes:
        require_known(pf, plan.found, plan.to_set)
    return plan


def kept_originals(record: dict[str, Any] | None, want: int) -> range:
    """Return the virtual functions of the host that were made anew for another number of them.

    What they were set to is needed again each time when they are made, at last when all is given back.
    """
    return range(record["vfs"] if record is not None and record["vfs"] != want else 0)


def _plan_release(root: Root, pf: PciDevice, record: dict[str, Any]) -> VfPlan:
    now, want, original = count(root, pf), record["vfs"], from_record(record)
    # Without an interface nobody can be told.
    restore = original if interface_of(root, pf) is not None else {}
    return VfPlan(pf, now, want, record, restore=restore, found=read_settings(root, pf) if now and restore else {})


def _check_settings(root: Root, pf: PciDevice, entry: dict[str, Any], position: int) -> None:
    declared = entry.get("functions") or []
    wrong = list(problems(declared, entry["vfs"], "sriov[%d].functions" % position))
    if wrong:
        raise _wrong_settings(
            "The settings of the virtual functions of %s are not declared properly." % pf.address, list(map(str, wrong))
        )
    if declared and interface_of(root, pf) is None:
        raise HostError(
            "sriov",
            "The virtual functions of %s cannot be set up: it has no network interface." % pf.address,
            evidence=["%s/net: no interface of its own" % pf.path, describe(pf)],
            remedy="Bind it to its network driver, outside of network namespaces, or declare no functions for it.",
        )


def _wrong_settings(message: str, evidence: list[str]) -> HostError:
    return HostError("sriov", message, evidence, "Correct the entry in sriov (noiommu_sriov).")


def require_known(pf: PciDevice, found: Mapping[int, Settings], wanted: Mapping[int, Settings]) -> None:
    """Refuse settings of which the driver tells nothing: nobody could say whether it has them."""
    for index, settings in wanted.items():
        lacking = [key for key in settings if found.get(index, {}).get(key) is None]
        if lacking:
            raise HostError(
                "sriov",
                "The driver %s does not know %s of virtual function %d of %s."
                % (pf.driver or "(none)", ", ".join(lacking), index, pf.address),
                evidence=["rtnetlink, IFLA_VFINFO_LIST: the driver does not tell %s" % ", ".join(lacking)],
                remedy="Remove what it does not know from functions, or use a card whose driver does.",
            )


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
