# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists of ids by which vfio-pci takes every device of a model, declared or not."""

from __future__ import annotations

import re

from .._base.errors import HostError
from .._base.fs import Root
from .._host.modprobe import Option, module_options
from .._host.pci import PciBus, PciDevice
from .kinds import BUILTIN

_SHOWN = 5
_ANY = "ffffffff"


def id_refusals(root: Root, bus: PciBus, backend: str | None, declared: set[str]) -> list[HostError]:
    """Refuse a list of ids for vfio-pci that would take devices which are not declared.

    On a kernel with VFIO's no-IOMMU mode such a line does nothing until that mode is on, which the backend builtin
    turns on for every boot: then vfio-pci takes each device of these models, if it is loaded before the host's driver.
    """
    lines = id_options(root) if backend == BUILTIN else []
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


def id_options(root: Root) -> list[Option]:
    """Return the lists that modprobe is configured with."""
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
