# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a device that the host's network depends on is never taken away."""

from __future__ import annotations

import ipaddress
from typing import Iterable

from .._base.fs import Root
from .._host.pci import NET, PciDevice
from .guard_context import Guard, GuardContext, Owner, shorten

# The interface that the kernel puts on top of every port of Open vSwitch.
_OVS = "ovs-system"


def network_guards(
    context: GuardContext, owners: list[Owner], device: PciDevice, chains: dict[str, str]
) -> list[Guard]:
    """Return the reasons in the interfaces of a device: those on or above it, each with the chain that leads to it."""
    if not chains:
        return _other_namespace(context, owners, device)
    guards = _connections(context, device, chains) + _routes(context, device, chains)
    if not guards:
        guards = _addresses(context, device, chains)
    # One of these is enough: the most telling comes first.
    for look in (_vswitch_port, _xdp, _packet_sockets, _traffic_control):
        guards = guards or look(context, device, chains)
    guards = guards or _stacked(context, owners, device, chains)
    guards += _pppoe(context, device, chains) + _containers(context, device, chains)
    return guards + _other_namespace(context, owners, device)


def interface_chains(context: GuardContext, owners: list[Owner]) -> dict[str, str]:
    """Return every interface on or above these devices, each with the chain that leads to it as text."""
    chains = _own_interfaces(context, owners)
    pending = list(chains)
    while pending:
        name = pending.pop()
        for above in _uppers(context, name):
            if above not in chains:
                chains[above] = "%s on %s" % (above, chains[name])
                pending.append(above)
    return chains


def _own_interfaces(context: GuardContext, owners: list[Owner]) -> dict[str, str]:
    return {name: owner.prefix + name for owner in owners for name in context.net_below.get(owner.device.real, ())}


def _uppers(context: GuardContext, name: str) -> list[str]:
    found = [entry[len("upper_") :] for entry in context.root.must_list(NET, name) if entry.startswith("upper_")]
    master = context.root.link_name(NET, name, "master")
    found += [master] if master else []
    # Tunnels, and whatever else only the kernel's own list of interfaces ties to the one below.
    return list(dict.fromkeys(found + context.linked_above.get(context.root.read_int(NET, name, "ifindex"), [])))


def ifindexes(context: GuardContext, chains: dict[str, str]) -> dict[int, str]:
    """Return the names of interfaces by index."""
    pairs = ((context.root.read_int(NET, name, "ifindex"), name) for name in chains)
    return {index: name for index, name in pairs if index is not None}


def _connections(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """Look at connections besides routes: over a link-local address, there are only the kernel's own routes."""
    names = ifindexes(context, chains)
    incoming, others = [], []
    for entry in context.net.addresses:
        if entry.ifindex not in names:
            continue
        where = "address %s/%d on %s; " % (entry.address, entry.prefixlen, chains[names[entry.ifindex]])
        if entry.address in context.management_addresses:
            incoming.append(where + context.management_addresses[entry.address])
        elif entry.address in context.connected_addresses:
            others.append(where + context.connected_addresses[entry.address])
    guards = []
    if incoming:
        guards.append(
            Guard(
                "management",
                "%s carries the connection this host is managed through." % device.address,
                incoming,
                "Choose another device, or move the host's management address to another one first.",
            )
        )
    if others:
        guards.append(
            Guard(
                "connection",
                "%s carries connections of this host." % device.address,
                shorten(others),
                "Stop what is connected (storage such as iSCSI, NVMe/TCP or NFS; routing; a service), then run again.",
            )
        )
    return guards


def _routes(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    names = ifindexes(context, chains)
    evidence = []
    for route in context.net.routes:
        if route.kernel_link_local:  # every interface that is up has these, used or not
            continue
        evidence += ["%s dev %s" % (route, chains[names[index]]) for index in route.ifindexes if index in names]
    return _carries("route", "routes", device, evidence)


def _addresses(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """An address without a route is on an interface that is down: it is lost with the interface all the same."""
    names = ifindexes(context, chains)
    evidence = [
        "address %s/%d on %s" % (entry.address, entry.prefixlen, chains[names[entry.ifindex]])
        for entry in context.net.addresses
        if entry.ifindex in names and not ipaddress.ip_address(entry.address).is_link_local
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
    """Refuse what containers have an interface on top of; sysfs does not show it."""
    names = ifindexes(context, chains)
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
    if _OVS not in chains:
        return []
    return [
        Guard(
            "openvswitch",
            "%s is a port of Open vSwitch, and the host's own traffic may pass through it." % device.address,
            [chains[_OVS]],
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


def _packet_sockets(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    evidence = _seen(context, chains, context.packet_sockets)
    if not evidence:
        return []
    return [
        Guard(
            "packet_socket",
            "A process receives all packets of %s, and the host's own traffic may pass through it." % device.address,
            shorten(evidence),
            "Stop it, or take the interface from it (Open vSwitch's userspace datapath: ovs-vsctl del-port <interface>;"
            " VPP; an intrusion prevention system; a capture), then run again.",
        )
    ]


def _traffic_control(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    evidence = _seen(context, chains, context.traffic_control)
    if not evidence:
        return []
    return [
        Guard(
            "traffic_control",
            "tc, BPF or nftables handle packets of %s, and the host's own traffic may be among them." % device.address,
            shorten(evidence),
            "If the host does not need it, remove the filters (tc qdisc del dev <interface> clsact, or ingress;"
            " tc actions list action mirred; bpftool net; nft list ruleset), then run again. Where all that is said is"
            " what a BPF program may do: see that the host works without the interface (ip link set <interface> down).",
        )
    ]


def _seen(context: GuardContext, chains: dict[str, str], found: dict[int, list[str]]) -> list[str]:
    """Return what was found of these interfaces, by index, each with its chain."""
    return [
        "%s: %s" % (chains[name], what)
        for index, name in ifindexes(context, chains).items()
        for what in found.get(index, ())
    ]


def _stacked(context: GuardContext, owners: list[Owner], device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """Refuse an interface that has no address itself, but another one on top of it.

    A bridge may pass on what the host sends through a veth or tap, and nothing in sysfs leads from one end of those to
    the other. And the layers would not be restored with the device.
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
            "(%s), then run again." % "; ".join(shorten(_freeing(context, own))),
        )
    ]


def _freeing(context: GuardContext, names: Iterable[str]) -> list[str]:
    """Return the commands after which nothing is on top of these interfaces."""
    commands = []
    for name in names:
        master = context.root.link_name(NET, name, "master")
        commands += ["ip link set %s nomaster" % name] if master else []
        commands += ["ip link delete %s" % above for above in _uppers(context, name) if above != master]
    return commands


def _pppoe(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """Refuse an interface below a PPPoE session: addresses are on ppp0, and nothing in sysfs leads from there to it."""
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


def _other_namespace(context: GuardContext, owners: list[Owner], device: PciDevice) -> list[Guard]:
    """Refuse a device with interfaces in other network namespaces, all or one of several; sysfs does not show those."""
    owners = [owner for owner in owners if owner.is_the_hosts]
    evidence = [
        owner.prefix + link
        for owner in owners
        for path, link in context.elsewhere.devices
        if path == owner.device.real or path.startswith(owner.device.real + "/")
    ]
    if not evidence:
        networks = [owner.device for owner in owners if owner.device.is_network]
        evidence = [line for network in networks for line in _hidden(context.root, network)]
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
    children = [device.real] + [device.real + "/" + name for name in root.must_list(device.real)]
    hidden = [child + "/net" for child in children if root.exists(child, "net") and not root.listdir(child, "net")]
    return ["%s is there and empty, driver %s" % (path, device.driver) for path in hidden]
