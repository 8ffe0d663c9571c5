# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that somebody holds: unbinding them would hang, or take them away under who uses them."""

from __future__ import annotations

from typing import Iterable

from .._base.errors import HostError
from .._base.fs import Root
from .._host.pci import PciDevice
from .control import Kernel, nodes_of
from .hanging import refuse_hanging


def in_use(kernel: Kernel, devices: list[PciDevice]) -> dict[str, HostError]:
    """Refuse to unbind devices that a process drives, each by its address."""
    nodes = {device.address: nodes_of(kernel.root, device) for device in devices}
    users = kernel.users({node for found in nodes.values() for node in found})
    found = {}
    for device in devices:
        evidence = [line for node in nodes[device.address] for line in users.get(node, [])]
        if evidence:
            found[device.address] = HostError(
                "in_use",
                "%s has to be unbound from %s, but it is in use." % (device.address, device.driver),
                evidence,
                "Stop that process first: unbinding would hang until it ends, or take the device away under it.",
            )
    return found


def hanging(root: Root, addresses: Iterable[str]) -> dict[str, HostError]:
    """Refuse to touch devices whose unbinding by an earlier run still hangs in the kernel."""
    errors = {}
    for address in sorted(addresses):
        try:
            refuse_hanging(root, address)
        except HostError as exc:
            errors[address] = exc
    return errors
