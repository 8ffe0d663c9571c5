# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configuration of the host that contradicts the declaration of a device."""

from __future__ import annotations

from typing import Iterable, NamedTuple

from .._base.fs import Root
from .._host.network_config import Identity, mentions
from .._host.pci import PciDevice
from .kinds import BUILTIN
from .vfio_ids import id_options

_DRIVERCTL = "/etc/driverctl.d"
_SHOWN = 5


class Declared(NamedTuple):
    """A declared device, with what was recorded of it before it was bound."""

    device: PciDevice
    names: frozenset[str] = frozenset()
    macs: frozenset[str] = frozenset()


def warnings(root: Root, backend: str | None, devices: Iterable[Declared]) -> list[str]:
    """Warn about configuration of the host that contradicts the declaration."""
    found = []
    declared = list(devices)
    if declared and backend != BUILTIN:
        found += [
            "%s: ids=%s: vfio-pci takes every device of these models, declared or not. Remove it."
            % (line.where, line.value)
            for line in id_options(root)
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
