# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the PCI devices that the entries of a device list select."""

from __future__ import annotations

from typing import Any

from .._base.errors import HostError
from .._host.pci import PciBus, PciDevice
from .finders import FINDERS
from .recorded import Recorded
from .selector_errors import describe, selector_error

KINDS = tuple(FINDERS)
# The argument spec of one entry, for every module that takes a list of devices.
ELEMENT_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        **{kind: {"type": "str"} for kind in KINDS},
        "subsystem": {"type": "str"},
        "vf": {"type": "list", "elements": "str"},
        "count": {"type": "int"},
        "write_combining": {"type": "list", "elements": "str"},
    },
    "mutually_exclusive": [KINDS],
    "required_one_of": [KINDS],
    "required_by": {"subsystem": ["vendor_device"], "vf": ["pf"]},
}


def resolve(
    selectors: list[dict[str, Any]], bus: PciBus, recorded: list[Recorded]
) -> tuple[list[PciDevice], list[HostError]]:
    """Return the selected devices in bus order, and an error for each entry that selects none or the wrong ones.

    A device bound to VFIO has no interface: it is then found by what was recorded before it was bound.
    """
    pairs, errors = match(selectors, bus, recorded)
    return [device for device, _entry in pairs], errors


def match(
    selectors: list[dict[str, Any]], bus: PciBus, recorded: list[Recorded]
) -> tuple[list[tuple[PciDevice, dict[str, Any]]], list[HostError]]:
    """Return the selected devices as :func:`resolve` does, each with the entry that selects it."""
    chosen: dict[str, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    errors: list[HostError] = []
    for selector in selectors:
        try:
            kind, value = _kind_and_value(selector)
            entry = _as_text(kind, value, selector)
            devices = {device.address: device for device in FINDERS[kind](value, bus, recorded, selector)}
            _check_count(entry, list(devices.values()), selector.get("count"))
        except HostError as exc:
            errors.append(exc)
            continue
        for address in devices:
            if address in chosen:
                errors.append(_selected_twice(address, chosen[address], entry))
            else:
                chosen[address], entries[address] = entry, selector
    errors += _losing_virtual_functions([bus.devices[address] for address in chosen], bus)
    return [(device, entries[device.address]) for device in bus if device.address in chosen], errors


def _kind_and_value(selector: dict[str, Any]) -> tuple[str, str]:
    given = [(kind, str(selector[kind])) for kind in KINDS if selector.get(kind) is not None]
    if len(given) != 1:
        raise selector_error(
            "An entry of the device list must have exactly one of %s." % ", ".join(KINDS),
            evidence=[repr(selector)],
            remedy="Write one selector per entry.",
        )
    return given[0]


def _as_text(kind: str, value: str, selector: dict[str, Any]) -> str:
    text = "%s: %s" % (kind, value)
    if selector.get("subsystem"):
        text += ", subsystem: %s" % selector["subsystem"]
    if selector.get("vf"):
        text += ", vf: %s" % ",".join(selector["vf"])
    return text


def _check_count(entry: str, devices: list[PciDevice], count: int | None) -> None:
    if count is None or len(devices) == count:
        return
    raise selector_error(
        "The entry %s means %d devices, but the declared count is %d." % (entry, len(devices), count),
        evidence=["matched: " + describe(device) for device in devices],
        remedy="Correct the entry or its count; if devices are missing, check the hardware (`lspci`, `dmesg`).",
    )


def _losing_virtual_functions(chosen: list[PciDevice], bus: PciBus) -> list[HostError]:
    """Refuse physical functions with virtual ones: releasing the driver destroys those."""
    return [
        selector_error(
            "%s has %d virtual functions, which would be destroyed with it." % (device.address, len(functions)),
            evidence=["virtual function %d: %s" % (index, describe(vf)) for index, vf in sorted(functions.items())],
            remedy="Select its virtual functions instead, or give it none: sriov: [{pf: %s, vfs: 0}]." % device.address,
        )
        for device, functions in ((device, bus.functions(device)) for device in chosen)
        if functions
    ]


def _selected_twice(address: str, first: str, second: str) -> HostError:
    return selector_error(
        "%s is selected twice." % address,
        evidence=["by %s" % first, "by %s" % second],
        remedy="Remove one of the two entries from the device list.",
    )
