# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reasons for never taking a device away from the host. There is no switch that overrides them.

A guard stands on the device itself and on everything that lives on top of it: VLAN, macvlan, ipvlan, bond, team, bridge
and VRF interfaces, also those in containers; the virtual functions of a physical one; partitions, RAID, LVM, dm-crypt,
multipath. An interface that carries nothing itself, but has another one on top of it, is refused for that alone.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Iterable

from .._base.errors import HostError
from .._base.fs import Root
from .._host.netlink import NetState
from .._host.pci import NET, PciBus, PciDevice
from .guard_context import Guard, GuardContext, shorten
from .storage_guards import storage_guards

# The interface that the kernel puts on top of every port of Open vSwitch.
_OVS = "ovs-system"
# Drivers under which a function has no kernel interface in any network namespace.
PASSTHROUGH_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub", "xen-pciback")
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
    owners = _owners(bus, device)
    interfaces = _interface_chains(context, owners)
    return _network_guards(context, owners, device, interfaces) + storage_guards(context, device, owners, interfaces)


def _owners(bus: PciBus, device: PciDevice) -> list[tuple[PciDevice, str]]:
    """Return the device and what is taken with it, each with what to say before the name of what it has."""
    owners = [(device, "")]
    # Taking a physical function removes its virtual ones.
    for address in device.virtfns:
        function = bus.get(address)
        if function is not None:
            owners.append((function, "virtual function %s, " % address))
    return owners


# --- network ---


def _network_guards(
    context: GuardContext, owners: list[tuple[PciDevice, str]], device: PciDevice, chains: dict[str, str]
) -> list[Guard]:
    if not chains:
        return _other_namespace(context, owners, device)
    guards = _management(context, device, chains) + _routes(context, device, chains)
    if not guards:
        guards = _addresses(context, device, chains)
    guards = guards or _vswitch_port(context, device, chains) or _xdp(context, device, chains)
    guards = guards or _stacked(context, owners, device, chains)
    guards += _pppoe(context, device, chains) + _containers(context, device, chains)
    return guards + _other_namespace(context, owners, device)


def _interface_chains(context: GuardContext, owners: list[tuple[PciDevice, str]]) -> dict[str, str]:
    """Return every interface on or above these devices, each with the chain that leads to it as text."""
    chains = _own_interfaces(context, owners)
    pending = list(chains)
    while pending:
        name = pending.pop()
        for above in _uppers(context.root, name):
            if above not in chains:
                chains[above] = "%s on %s" % (above, chains[name])
                pending.append(above)
    return chains


def _own_interfaces(context: GuardContext, owners: list[tuple[PciDevice, str]]) -> dict[str, str]:
    return {name: prefix + name for owner, prefix in owners for name in context.net_below.get(owner.real, ())}


def _uppers(root: Root, name: str) -> list[str]:
    found = [entry[len("upper_") :] for entry in root.listdir(NET, name) if entry.startswith("upper_")]
    master = root.link_name(NET, name, "master")
    return found + ([master] if master and master not in found else [])


def _ifindexes(context: GuardContext, chains: dict[str, str]) -> dict[int, str]:
    pairs = ((context.root.read_int(NET, name, "ifindex"), name) for name in chains)
    return {index: name for index, name in pairs if index is not None}


def _management(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    names = _ifindexes(context, chains)
    evidence = [
        "address %s/%d on %s; %s"
        % (one.address, one.prefixlen, chains[names[one.ifindex]], context.management_addresses[one.address])
        for one in context.net.addresses
        if one.ifindex in names and one.address in context.management_addresses
    ]
    if not evidence:
        return []
    return [
        Guard(
            "management",
            "%s carries the connection this host is managed through." % device.address,
            evidence,
            "Choose another device, or move the host's management address to another one first.",
        )
    ]


def _routes(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    names = _ifindexes(context, chains)
    evidence = []
    for route in context.net.routes:
        if route.kernel_link_local:  # every interface that is up has these, used or not
            continue
        evidence += ["%s dev %s" % (route, chains[names[index]]) for index in route.ifindexes if index in names]
    return _carries("route", "routes", device, evidence)


def _addresses(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """An address without a route is on an interface that is down: it is lost with the interface all the same."""
    names = _ifindexes(context, chains)
    evidence = [
        "address %s/%d on %s" % (one.address, one.prefixlen, chains[names[one.ifindex]])
        for one in context.net.addresses
        if one.ifindex in names and not ipaddress.ip_address(one.address).is_link_local
    ]
    return _carries("address", "addresses", device, evidence)


def _carries(kind: str, what: str, device: PciDevice, evidence: list[str]) -> list[Guard]:
    if not evidence:
        return []
    return [
        Guard(
            kind,
            "%s carries %d of the host's %s." % (device.address, len(evidence), what),
            shorten(evidence),
            "If the host does not need them, remove the addresses and routes from its network configuration, "
            "and from the running system (ip address flush dev <interface>), then run again.",
        )
    ]


def _containers(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """sysfs hides what containers have on top of an interface."""
    names = _ifindexes(context, chains)
    evidence = [
        "%s on %s" % (link, chains[names[index]]) for index in names for link in context.elsewhere.on_top.get(index, ())
    ]
    if not evidence:
        return []
    return [
        Guard(
            "namespace",
            "Interfaces in other network namespaces (containers) are on top of %s." % device.address,
            shorten(evidence),
            "Stop the containers, or give them another interface, then run again.",
        )
    ]


def _vswitch_port(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    evidence = [chains[_OVS]] if _OVS in chains else []
    evidence += _seen(context, chains, context.vswitch_sockets)
    if not evidence:
        return []
    return [
        Guard(
            "openvswitch",
            "%s is a port of Open vSwitch, and the host's own traffic may pass through it." % device.address,
            shorten(evidence),
            "Take it out of its bridge first: ovs-vsctl del-port <interface>.",
        )
    ]


def _xdp(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    evidence = _seen(context, chains, context.xdp_programs)
    if not evidence:
        return []
    return [
        Guard(
            "xdp",
            "Something takes packets from %s by XDP, and the host's own traffic may pass through it." % device.address,
            shorten(evidence),
            "Stop what uses it (Open vSwitch's or another AF_XDP port, a load balancer: bpftool net), "
            "or detach the program (ip link set <interface> xdp off), then run again.",
        )
    ]


def _seen(context: GuardContext, chains: dict[str, str], found: dict[int, str]) -> list[str]:
    """Return what was found of these interfaces, by index, each with its chain."""
    return [
        "%s: %s" % (chains[name], found[index]) for index, name in _ifindexes(context, chains).items() if index in found
    ]


def _stacked(
    context: GuardContext, owners: list[tuple[PciDevice, str]], device: PciDevice, chains: dict[str, str]
) -> list[Guard]:
    """Refuse what has no address itself, but something on top of it.

    A bridge may pass on what the host sends through a veth or tap, and nothing in sysfs leads from one end of those to
    the other. And the layers would not come back with the device.
    """
    own = _own_interfaces(context, owners)
    evidence = [chain for name, chain in chains.items() if name not in own]
    if not evidence:
        return []
    return [
        Guard(
            "stacked",
            "%s has other interfaces on top of it, and the host's own traffic may pass through them." % device.address,
            shorten(evidence),
            "If the host does not need them, take it out of its network configuration and out of what is on top of it "
            "(%s), then run again." % "; ".join(shorten(_freeing(context.root, own))),
        )
    ]


def _freeing(root: Root, names: Iterable[str]) -> list[str]:
    """Return the commands after which nothing is on top of these interfaces."""
    commands = []
    for name in names:
        master = root.link_name(NET, name, "master")
        commands += ["ip link set %s nomaster" % name] if master else []
        commands += ["ip link delete %s" % above for above in _uppers(root, name) if above != master]
    return commands


def _pppoe(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """The address and the routes are on ppp0 and the like, from which nothing in sysfs leads to the interface."""
    evidence = [
        "/proc/net/pppoe: session with %s through %s" % (context.pppoe[name], chain)
        for name, chain in chains.items()
        if name in context.pppoe
    ]
    if not evidence:
        return []
    return [
        Guard(
            "pppoe",
            "%s carries a PPPoE connection of the host." % device.address,
            evidence,
            "If the host does not need it, end it and take it out of the host's network configuration, then run again.",
        )
    ]


def _other_namespace(context: GuardContext, owners: list[tuple[PciDevice, str]], device: PciDevice) -> list[Guard]:
    """sysfs hides the interfaces that are in other network namespaces: all of a device's, or one of several."""
    owners = [
        (owner, prefix)
        for owner, prefix in owners
        if owner.driver is not None and owner.driver not in PASSTHROUGH_DRIVERS
    ]
    evidence = [
        prefix + link
        for owner, prefix in owners
        for path, link in context.elsewhere.devices
        if path == owner.real or path.startswith(owner.real + "/")
    ]
    if not evidence:
        evidence = [line for owner, prefix in owners if owner.is_network for line in _hidden(context.root, owner)]
    if not evidence:
        return []
    return [
        Guard(
            "namespace",
            "A network interface of %s is in another network namespace: a container or a VRF-like setup uses it."
            % device.address,
            shorten(evidence),
            "Stop what uses it or move it back (ip -n <namespace> link set <interface> netns 1), then run again.",
        )
    ]


def _hidden(root: Root, device: PciDevice) -> list[str]:
    """An interface moved to another network namespace leaves its ``net`` directory behind, empty for us."""
    children = [device.real] + [device.real + "/" + name for name in root.listdir(device.real)]
    hidden = [child + "/net" for child in children if root.exists(child, "net") and not root.listdir(child, "net")]
    return ["%s is there and empty, driver %s" % (path, device.driver) for path in hidden]


def carried(context: GuardContext, bus: PciBus, pf: PciDevice) -> list[tuple[int, str]]:
    """Return what the host has on a physical function's interfaces: (index of the interface, address or route)."""
    return _carried(context.net, set(_ifindexes(context, _interface_chains(context, _owners(bus, pf)))))


def _carried(net: NetState, indexes: set[int]) -> list[tuple[int, str]]:
    found = [(one.ifindex, "address %s/%d" % (one.address, one.prefixlen)) for one in net.addresses]
    for route in net.routes:
        found += [(index, str(route)) for index in route.ifindexes if not route.kernel_link_local]
    return [one for one in found if one[0] in indexes]


def disturbed(context: GuardContext, pf: PciDevice, before: list[tuple[int, str]]) -> list[str]:
    """Return what is gone of that. Some drivers restart their interface: that much time is given."""
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
