# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other configuration that acts on the same devices, and what it leads to."""

from __future__ import annotations

import re
from typing import Iterable, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host.modprobe import Option, module_options
from .._host.network_config import Identity, mentions
from .._host.pci import PciBus, PciDevice
from .backend import BUILTIN

_DRIVERCTL = "/etc/driverctl.d"
_SHOWN = 5
_ANY = "ffffffff"


class Declared(NamedTuple):
    """A declared device, with what was recorded of it before it was bound."""

    device: PciDevice
    names: frozenset[str] = frozenset()
    macs: frozenset[str] = frozenset()


def id_refusals(root: Root, bus: PciBus, backend: str | None, declared: set[str]) -> list[HostError]:
    """Refuse a list of ids for vfio-pci that would take devices which are not declared.

    On a kernel with VFIO's no-IOMMU mode such a line does nothing until that mode is on, which the backend builtin
    turns on for every boot: then vfio-pci takes each device of these models, if it is loaded before the host's driver.
    """
    lines = _id_options(root) if backend == BUILTIN else []
    taken = [
        "%s (%s, driver %s) is one of these and is not declared"
        % (device.address, device.vendor_device, device.driver or "none")
        for device in bus
        if device.is_endpoint and device.address not in declared and any(_has(root, line, device) for line in lines)
    ]
    if not taken:
        return []
    return [
        HostError(
            "vfio_ids",
            "vfio-pci is configured to bind devices by model, and with this backend it would at the next boot.",
            evidence=["%s: ids=%s" % (line.where, line.value) for line in lines] + taken[:_SHOWN],
            remedy="Remove the ids there; if vfio-pci is in the initial RAM disk, rebuild that as well"
            " (update-initramfs -u, or dracut --force). Devices that are declared are bound without it.",
        )
    ]


def warnings(root: Root, backend: str | None, devices: Iterable[Declared]) -> list[str]:
    """Warn about configuration of the host that contradicts the declaration."""
    found = []
    declared = list(devices)
    if declared and backend != BUILTIN:
        found += [
            "%s: ids=%s: vfio-pci takes every device of these models, declared or not. Remove it."
            % (line.where, line.value)
            for line in _id_options(root)
        ]
    for entry in declared:
        found += _of_device(root, entry)
    return found


def _of_device(root: Root, declared: Declared) -> list[str]:
    device = declared.device
    names = declared.names.union(interface.name for interface in device.interfaces)
    macs = declared.macs.union(interface.mac for interface in device.interfaces if interface.mac)
    found = mentions(root, Identity(names, macs, device.address))
    lines = ["%s (%s)" % mention for mention in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append("and %d more" % (len(found) - _SHOWN))
    said = []
    if lines:
        said.append(
            "%s is named in the host's network configuration, but will not exist: %s. Remove the lines, or a boot"
            " may wait for the interface." % (device.address, "; ".join(lines))
        )
    path = _DRIVERCTL + "/" + device.address
    override = root.read_text(path)
    if override:
        said.append(
            "%s: driverctl binds %s to %s at boot. Remove it (driverctl unset-override %s)."
            % (path, device.address, override, device.address)
        )
    return said


def _id_options(root: Root) -> list[Option]:
    return [option for option in module_options(root, "vfio_pci") if option.name == "ids" and option.value]


def _has(root: Root, option: Option, device: PciDevice) -> bool:
    """vendor:device[:subvendor[:subdevice[:class[:class_mask]]]], several with commas between."""
    shown = [device.vendor, device.device, *device.subsystem.split(":")]
    for pattern in option.value.lower().split(","):
        fields = pattern.strip().split(":")
        if len(fields) < 2 or not all(re.match(r"^[0-9a-f]+$", field) for field in fields):
            continue
        given = [field if field == _ANY else "%04x" % int(field, 16) for field in fields[:4]]
        wanted_class = int(fields[4], 16) if len(fields) > 4 else 0
        mask = int(fields[5], 16) if len(fields) > 5 else 0
        of_class = not (wanted_class ^ int(device.class_code or "0", 16)) & mask
        if of_class and all(field in (_ANY, value) for field, value in zip(given, shown)):
            return True
    return False
