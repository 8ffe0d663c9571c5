# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configuration of the host that acts against the declaration of a device: it binds, names or takes the device, too."""

from __future__ import annotations

from typing import Iterator, Mapping, Sequence

from .._base.fs import Root
from .._devices.recorded import Recorded
from .._host import dpdk_service
from .._host.pci import PciDevice
from .._policy import others
from .._policy.kinds import VFIO_PCI


def contradictions(
    root: Root, backend: str | None, devices: Sequence[PciDevice], recorded: Mapping[str, Recorded]
) -> list[str]:
    """Return a warning for each; ``recorded`` is what is known of devices from before they were bound, by address."""
    declared = [_declared(device, recorded.get(device.address)) for device in devices]
    addresses = {device.address for device in devices}
    return [*_bound_by_dpdk_service(root, addresses), *others.warnings(root, backend, declared)]


def _declared(device: PciDevice, record: Recorded | None) -> others.Declared:
    if record is None:
        return others.Declared(device)
    return others.Declared(device, frozenset(record.interfaces), frozenset(record.macs))


def _bound_by_dpdk_service(root: Root, addresses: set[str]) -> Iterator[str]:
    if not dpdk_service.is_enabled(root):
        return
    for binding in dpdk_service.bindings(root):
        if binding.address in addresses and binding.driver != VFIO_PCI:
            yield (
                "%s, line %d, has %s bind %s to %s. At boot the declared driver comes after it, but whenever it is"
                " started again, as by an upgrade of its package, its own replaces it. Remove the line."
                % (dpdk_service.INTERFACES, binding.line, dpdk_service.NAME, binding.address, binding.driver)
            )
