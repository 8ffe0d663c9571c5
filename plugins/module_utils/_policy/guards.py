# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a device is never taken away from the host. There is no switch that overrides a guard.

A guard protects the device itself and everything on top of it: VLAN, macvlan, ipvlan, tunnel, bond, team, bridge and
VRF interfaces, also those in containers; the virtual functions of a physical one; partitions, RAID, LVM, dm-crypt,
multipath. An interface that carries nothing itself, but has another one on top of it, is refused for that alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .._base.errors import HostError
from .._host.pci import PciBus, PciDevice
from .guard_context import Guard, GuardContext, Owner
from .kinds import PASSTHROUGH_DRIVERS

if TYPE_CHECKING:
    from .._host.netlink import NetState

_DISTURBANCE_WAIT = 10.0


def check(context: GuardContext, bus: PciBus, device: PciDevice) -> list[Guard]:
    """Return every reason for not taking this device; none means that it may be taken."""
    if not device.is_endpoint:
        return [
            Guard(
                "not_endpoint",
                "%s is a bridge or another non-endpoint function; vfio-pci cannot serve it." % device.address,
                ["%s/class: %s" % (device.path, device.class_code)],
                "Select the endpoint behind it instead.",
            )
        ]
    from .network_guards import interface_chains, network_guards
    from .node_guards import node_guards
    from .storage_guards import storage_guards

    owners = _owners(bus, device)
    interfaces = interface_chains(context, owners)
    return [
        *network_guards(context, owners, device, interfaces),
        *storage_guards(context, device, owners, interfaces),
        *node_guards(context, device, owners),
    ]


def _owners(bus: PciBus, device: PciDevice) -> list[Owner]:
    """Return the device and what is taken with it."""
    owners = [Owner(device, "")]
    # Taking a physical function removes its virtual ones.
    for address in device.virtfns:
        function = bus.get(address)
        if function is not None:
            owners.append(Owner(function, "virtual function %s, " % address))
    return owners


def carried(context: GuardContext, bus: PciBus, pf: PciDevice) -> list[tuple[int, str]]:
    """Return what the host has on a physical function's interfaces: (index of the interface, address or route)."""
    from .network_guards import ifindexes, interface_chains

    return _carried(context.net, set(ifindexes(context, interface_chains(context, _owners(bus, pf)))))


def _carried(net: NetState, indexes: set[int]) -> list[tuple[int, str]]:
    found = [(entry.ifindex, "address %s/%d" % (entry.address, entry.prefixlen)) for entry in net.addresses]
    for route in net.routes:
        found += [(index, str(route)) for index in route.ifindexes if not route.kernel_link_local]
    return [(index, what) for index, what in found if index in indexes]


def disturbed(context: GuardContext, pf: PciDevice, before: list[tuple[int, str]]) -> list[str]:
    """Return what is lost of that, after the time that some drivers take to restart their interface."""
    deadline = time.monotonic() + _DISTURBANCE_WAIT
    while before:
        now = _carried(context.read_net(), {index for index, _what in before})
        lost = [what for index, what in before if (index, what) not in now]
        if not lost or time.monotonic() >= deadline:
            return lost
        time.sleep(0.2)
    return []


def loss_refusals(
    context: GuardContext, bus: PciBus, lost: list[tuple[PciDevice, PciDevice]], ours: set[str]
) -> list[HostError]:
    """Say why virtual functions may not be destroyed for another number of them."""
    refusals = []
    for pf, device in lost:
        reasons = check(context, bus, device)
        evidence = [line for reason in reasons for line in reason.evidence]
        if device.driver in PASSTHROUGH_DRIVERS and device.address not in ours:
            evidence.append("%s is bound to %s, and not by this collection" % (device.address, device.driver))
        if evidence:
            refusals.append(
                HostError(
                    "guarded_device",
                    "The number of virtual functions of %s cannot be changed: %s would be destroyed, and is in use."
                    % (pf.address, device.address),
                    evidence=evidence,
                    remedy="Free it first, or declare the number that there is.",
                )
            )
    return refusals
