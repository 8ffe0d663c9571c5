# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reasons for never taking a device away from the host. There is no switch that overrides them.

A guard stands on the device itself and on everything that lives on top of it: VLAN, macvlan, ipvlan, bond, team, bridge
and VRF interfaces, also those in containers; the virtual functions of a physical one; partitions, RAID, LVM, dm-crypt,
multipath. An interface that carries nothing itself, but has another one on top of it, is refused for that alone.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import struct
import sys
import time
from functools import cached_property
from typing import Iterable, NamedTuple

from ._errors import HostError
from ._fs import Root
from ._mounts import Mount, read_mounts, unescape
from ._netlink import NetState
from ._namespaces import ensure_ours, links_in_other_namespaces
from ._pci import NET, PciBus, PciDevice
from ._processes import Open, name_of, open_files

BLOCK = "/sys/class/block"
NVME = "/sys/class/nvme"
# The interface that the kernel puts on top of every port of Open vSwitch.
_OVS = "ovs-system"
# Drivers under which a function has no kernel interface in any network namespace.
PASSTHROUGH_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub", "xen-pciback")
_SHOWN = 5
# What udev finds on a disk that is part of something larger, in use at the moment or not.
_MEMBERS = {
    "LVM2_member": "LVM",
    "linux_raid_member": "RAID (md)",
    "isw_raid_member": "firmware RAID",
    "ddf_raid_member": "firmware RAID",
    "zfs_member": "ZFS",
    "bcache": "bcache",
    "drbd": "DRBD",
}
_UDEV_DATABASE = "/run/udev/data"
_TAGS = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel", "ID": "by-id"}
_UDEV = ("systemd-udevd", "(udev-worker)", "udevd")
# Drivers of filesystems that a hypervisor shares, and the type of their mounts.
_SHARES = {"virtiofs": "virtiofs", "9pnet_virtio": "9p"}
_DISTURBANCE_WAIT = 10.0


class Guard(NamedTuple):
    """One reason, what it was seen by, and how to end it."""

    kind: str
    message: str
    evidence: list[str]
    remedy: str

    def as_dict(self) -> dict:
        """Return the shape used in module results."""
        return self._asdict()

    def refusal(self) -> HostError:
        """Return the error it is for a device that was asked for."""
        return HostError("guarded_device", self.message, self.evidence, self.remedy)


class GuardContext:
    """What the guards look at, read once for all devices and only if a device needs it."""

    def __init__(self, root: Root, net: NetState | None = None, ssh_connection: str | None = None) -> None:
        self.root = root
        self._net = net
        self._ssh_connection = ssh_connection

    def fresh(self) -> GuardContext:
        """Return one that has read nothing yet."""
        return GuardContext(self.root, self._net, self._ssh_connection)

    @cached_property
    def net(self) -> NetState:
        """Addresses and routes: asked of the kernel on a running host, given by tests."""
        if self._net is not None:
            return self._net
        if not self.root.is_live:
            return NetState([], [])
        state = NetState.read()
        ensure_ours(self.root)
        return state

    def read_net(self) -> NetState:
        """Return the addresses and routes as they are now, whatever was read before."""
        if self._net is None and self.root.is_live:
            return NetState.read()
        return self.net

    @cached_property
    def elsewhere(self) -> dict[int, list[str]]:
        """What containers have on top of this namespace's interfaces, by the index of the interface."""
        return links_in_other_namespaces(self.root) if self.root.is_live else {}

    @cached_property
    def management_addresses(self) -> dict[str, str]:
        """Local addresses of live incoming connections, each with the connection as evidence."""
        return management_addresses(self.root, self._ssh_connection)

    @cached_property
    def pppoe(self) -> dict[str, str]:
        """The interfaces that PPPoE sessions go through, each with the other end's MAC address."""
        rows = [line.split() for line in (self.root.read_text("/proc/net/pppoe") or "").splitlines()[1:]]
        return {row[-1]: row[1] for row in rows if len(row) == 3}

    @cached_property
    def mounts(self) -> list[Mount]:
        """What is mounted for the host."""
        # Without privileges only one's own table can be read; mostly it is the same.
        mounts = read_mounts(self.root) or read_mounts(self.root, "/proc/self/mountinfo")
        # A source may be a link such as /dev/mapper/vg-root or /dev/disk/by-uuid/...
        real = {one.source: self.root.realpath(one.source) for one in mounts if one.source.startswith("/dev/")}
        return [one._replace(source=real.get(one.source, one.source)) for one in mounts]

    @cached_property
    def fstab(self) -> dict[str, str]:
        """Kernel names of what the host mounts or swaps to at one time or another, each with its line."""
        return read_fstab(self.root)

    @cached_property
    def swaps(self) -> set[str]:
        """Kernel names of the block devices swapped to."""
        lines = (self.root.read_text("/proc/swaps") or "").splitlines()[1:]
        return {os.path.basename(self.root.realpath(line.split()[0])) for line in lines if line.startswith("/dev/")}

    @cached_property
    def loops(self) -> dict[str, list[str]]:
        """The loop devices on each block device: nothing else in sysfs leads from one to the other."""
        found: dict[str, list[str]] = {}
        for name in (name for name in self.block_paths if name.startswith("loop")):
            backing = self.root.read_text(BLOCK, name, "loop/backing_file") or ""
            if backing.startswith("/dev/"):
                found.setdefault(os.path.basename(self.root.realpath(backing)), []).append(name)
        return found

    @cached_property
    def writers(self) -> dict[str, list[str]]:
        """The processes that have a block device open for writing, by its kernel name."""
        return disk_writers(self.root, self.block_paths)

    @cached_property
    def block_paths(self) -> dict[str, str]:
        """Every block device's kernel name and its directory below /sys/devices."""
        return {name: self.root.target(BLOCK, name) for name in self.root.listdir(BLOCK)}

    @cached_property
    def net_paths(self) -> dict[str, str]:
        """Every interface's name and its directory below /sys/devices."""
        return {name: self.root.target(NET, name) for name in self.root.listdir(NET)}

    @cached_property
    def net_below(self) -> dict[str, list[str]]:
        """The interfaces on or below each device that has any."""
        return _below(self.net_paths)

    @cached_property
    def block_below(self) -> dict[str, list[str]]:
        """The block devices on or below each device that has any."""
        return _below(self.block_paths)

    @cached_property
    def nvme_paths(self) -> dict[str, str]:
        """Every NVMe controller's name and its directory below /sys/devices."""
        return {name: self.root.target(NVME, name) for name in self.root.listdir(NVME)}


def _below(paths: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, path in paths.items():
        while path.count("/") > 2:  # up to /sys/devices
            path = path.rpartition("/")[0]
            found.setdefault(path, []).append(name)
    return found


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
    interfaces = interface_chains(context, bus, device)
    return _network_guards(context, bus, device, interfaces) + _storage_guards(context, device, interfaces)


# --- network ---


def _network_guards(context: GuardContext, bus: PciBus, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    if not chains:
        return _other_namespace(context, device)
    guards = _management(context, device, chains) + _routes(context, device, chains)
    if not guards:
        guards = _addresses(context, device, chains)
    if not guards:
        guards = _stacked(context, bus, device, chains)
    return guards + _pppoe(context, device, chains) + _containers(context, device, chains)


def interface_chains(context: GuardContext, bus: PciBus, device: PciDevice) -> dict[str, str]:
    """Return every interface on or above the device, each with the chain that leads to it as text."""
    chains = _own_interfaces(context, bus, device)
    pending = list(chains)
    while pending:
        name = pending.pop()
        for above in _uppers(context.root, name):
            if above not in chains:
                chains[above] = "%s on %s" % (above, chains[name])
                pending.append(above)
    return chains


def _own_interfaces(context: GuardContext, bus: PciBus, device: PciDevice) -> dict[str, str]:
    owners = [(device, "")]
    # Taking a physical function removes its virtual ones.
    for address in device.virtfns:
        function = bus.get(address)
        if function is not None:
            owners.append((function, "virtual function %s, " % address))
    return {name: prefix + name for owner, prefix in owners for name in context.net_below.get(owner.real, ())}


def _uppers(root: Root, name: str) -> list[str]:
    found = [entry[len("upper_"):] for entry in root.listdir(NET, name) if entry.startswith("upper_")]
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
            _shorten(evidence),
            "If the host does not need them, remove the addresses and routes from its network configuration, "
            "and from the running system (ip address flush dev <interface>), then run again.",
        )
    ]


def _containers(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """sysfs hides what containers have on top of an interface."""
    names = _ifindexes(context, chains)
    evidence = [
        "%s on %s" % (link, chains[names[index]]) for index in names for link in context.elsewhere.get(index, ())
    ]
    if not evidence:
        return []
    return [
        Guard(
            "namespace",
            "Interfaces in other network namespaces (containers) are on top of %s." % device.address,
            _shorten(evidence),
            "Stop the containers, or give them another interface, then run again.",
        )
    ]


def _stacked(context: GuardContext, bus: PciBus, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """Refuse what has no address itself, but something on top of it.

    A bridge may pass on what the host sends through a veth or tap, and nothing in sysfs leads from one end of those to
    the other. And the layers would not come back with the device.
    """
    if _OVS in chains:
        return [
            Guard(
                "openvswitch",
                "%s is a port of Open vSwitch, and the host's own traffic may pass through it." % device.address,
                [chains[_OVS]],
                "Take it out of its bridge first: ovs-vsctl del-port <interface>.",
            )
        ]
    own = _own_interfaces(context, bus, device)
    evidence = [chain for name, chain in chains.items() if name not in own]
    if not evidence:
        return []
    return [
        Guard(
            "stacked",
            "%s has other interfaces on top of it, and the host's own traffic may pass through them." % device.address,
            _shorten(evidence),
            "If the host does not need them, take it out of its network configuration and out of what is on top of it "
            "(%s), then run again." % "; ".join(_shorten(_freeing(context.root, own))),
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


def _other_namespace(context: GuardContext, device: PciDevice) -> list[Guard]:
    """An interface moved to another network namespace leaves its ``net`` directory behind, empty for us."""
    if not device.is_network or device.driver is None or device.driver in PASSTHROUGH_DRIVERS:
        return []
    root = context.root
    children = [device.real] + [device.real + "/" + name for name in root.listdir(device.real)]
    hidden = [child + "/net" for child in children if root.exists(child, "net") and not root.listdir(child, "net")]
    if not hidden:
        return []
    return [
        Guard(
            "namespace",
            "The network interface of %s is in another network namespace: a container or a VRF-like setup uses it."
            % device.address,
            ["%s is there and empty, driver %s" % (path, device.driver) for path in hidden],
            "Stop what uses it or move it back (ip -n <namespace> link set <interface> netns 1), then run again.",
        )
    ]


def carried(context: GuardContext, bus: PciBus, pf: PciDevice) -> list[tuple[int, str]]:
    """Return what the host has on a physical function's interfaces: (index of the interface, address or route)."""
    return _carried(context.net, set(_ifindexes(context, interface_chains(context, bus, pf))))


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


def _shorten(evidence: list[str]) -> list[str]:
    if len(evidence) <= _SHOWN:
        return evidence
    return evidence[:_SHOWN] + ["and %d more" % (len(evidence) - _SHOWN)]


def management_addresses(root: Root, ssh_connection: str | None) -> dict[str, str]:
    """Return local addresses that somebody is connected to, with the evidence.

    SSH_CONNECTION names ours, but sudo removes it: every established connection to a listening port counts.
    """
    found: dict[str, str] = {}
    words = (ssh_connection or "").split()
    # Over anything but TCP, sshd writes UNKNOWN for the addresses.
    if len(words) == 4 and words[2] != "UNKNOWN":
        found[canonical_ip(words[2])] = "SSH_CONNECTION=%s" % " ".join(words)
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        text = root.read_text(table) or ""
        for address, port, peer in incoming_connections(text):
            found.setdefault(address, "established TCP connection to port %d from %s" % (port, peer))
    return found


def canonical_ip(text: str) -> str:
    """Return an address without zone, an IPv4-mapped one as IPv4."""
    address = ipaddress.ip_address(text.split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def incoming_connections(text: str) -> list[tuple[str, int, str]]:
    """Parse /proc/net/tcp or tcp6: (local address, local port, peer) of established incoming connections."""
    rows = [line.split() for line in text.splitlines()[1:]]
    rows = [row for row in rows if len(row) > 3]
    listening = {row[1].rsplit(":", 1)[1] for row in rows if row[3] == "0A"}
    return [
        (_proc_ip(row[1]), int(row[1].rsplit(":", 1)[1], 16), _proc_ip(row[2]))
        for row in rows
        if row[3] == "01" and row[1].rsplit(":", 1)[1] in listening
    ]


def _proc_ip(field: str) -> str:
    raw = bytes.fromhex(field.rsplit(":", 1)[0])
    words = struct.unpack(">%dI" % (len(raw) // 4), raw)
    # The kernel prints each 32-bit word of the address as a number in its own byte order.
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return canonical_ip(str(ipaddress.ip_address(packed)))


# --- storage ---


def _storage_guards(context: GuardContext, device: PciDevice, interfaces: dict[str, str]) -> list[Guard]:
    chains = block_chains(context, device, interfaces)
    guards = _mounted(context, device, chains) + _swapped(context, device, chains)
    return guards or _claimed(context, device, chains) or _members(context, device, chains)


def _mounted(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    mounted, named = _shares(context, device), []
    for name, chain in chains.items():
        uses = _uses(context, name, chain)
        mounted += uses
        if name in context.fstab and not uses and name not in context.swaps:
            named.append("%s is named in /etc/fstab: %s" % (chain, context.fstab[name]))
    if not mounted and not named:
        return []
    return [
        Guard(
            "mount",
            # An automount, noauto, or a boot that has not come that far.
            "%s holds %s." % (device.address, "mounted filesystems" if mounted else "what /etc/fstab names"),
            _shorten(mounted + named),
            "Unmount it and take it out of /etc/fstab first, or choose another device.",
        )
    ]


def _uses(context: GuardContext, name: str, chain: str) -> list[str]:
    numbers = context.root.read_text(BLOCK, name, "dev")
    uses = [
        "%s (%s) is mounted on %s" % (chain, numbers, mount.target)
        for mount in context.mounts
        if mount.numbers == numbers or os.path.basename(mount.source) == name and mount.source.startswith("/dev/")
    ]
    return uses + (["%s belongs to a mounted btrfs" % chain] if _in_btrfs(context.root, name) else [])


def _shares(context: GuardContext, device: PciDevice) -> list[str]:
    """What a hypervisor shares has no block device. Whose a mount is, is not asked: one too many is the safe side."""
    if device.driver != "virtio-pci":
        return []
    evidence = []
    for child in (name for name in context.root.listdir(device.real) if name.startswith("virtio")):
        driver = context.root.link_name(device.real, child, "driver") or ""
        evidence += [
            "%s: driver %s; %s (%s) is mounted on %s" % (child, driver, mount.source, mount.fstype, mount.target)
            for mount in context.mounts
            if mount.fstype == _SHARES.get(driver)
        ]
    return evidence


def _swapped(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    evidence = ["%s is in /proc/swaps" % chain for name, chain in chains.items() if name in context.swaps]
    if not evidence:
        return []
    remedy = "swapoff it and take it out of /etc/fstab first, or choose another device."
    return [Guard("swap", "%s holds swap space in use." % device.address, _shorten(evidence), remedy)]


def _claimed(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    evidence = []
    for name, chain in chains.items():
        holders = _holders(context, name)
        if holders:
            evidence.append("%s is held by %s" % (chain, ", ".join(_mapped(context.root, one) for one in holders)))
        elif _is_claimed(context.root, name):
            evidence.append("%s: opening it exclusively gives EBUSY" % chain)
        else:
            evidence += ["%s is open for writing in %s" % (chain, one) for one in context.writers.get(name, ())]
    if not evidence:
        return []
    remedy = "Stop what uses it (RAID, LVM, ZFS, an iSCSI target, a virtual machine, another mount namespace) first."
    return [Guard("disk_in_use", "%s holds a disk in use." % device.address, _shorten(evidence), remedy)]


def _holders(context: GuardContext, name: str) -> list[str]:
    return context.root.listdir(context.block_paths[name], "holders") + context.loops.get(name, [])


def _mapped(root: Root, name: str) -> str:
    mapped = root.read_text(BLOCK, name, "dm/name")
    return "%s (%s)" % (name, mapped) if mapped else name


def disk_writers(root: Root, names: Iterable[str]) -> dict[str, list[str]]:
    """Say which processes have block devices open for writing: the raw disks of QEMU and of Oracle ASM, for example.

    Those are not opened exclusively. What udev and blkid look at for a moment they open for reading; udev is left out
    all the same, since it does not use what it opens.
    """
    wanted = {"/dev/" + name.replace("!", "/"): name for name in names}
    found: dict[str, list[str]] = {}
    pairs = {(wanted[one.path], one.pid) for one in open_files(root, wanted) if _is_for_writing(root, one)}
    for name, pid in sorted(pairs):
        comm = name_of(root, pid)
        if comm not in _UDEV:
            found.setdefault(name, []).append("process %s (%s)" % (pid, comm))
    return found


def _is_for_writing(root: Root, one: Open) -> bool:
    text = root.read_text("/proc", one.pid, "fdinfo", one.fd) or ""
    flags = re.search(r"^flags:\s*([0-7]+)", text, re.MULTILINE)
    return flags is not None and int(flags.group(1), 8) & os.O_ACCMODE != os.O_RDONLY


def _members(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    kinds = ((chain, _member_of(context.root, context.root.read_text(BLOCK, name, "dev")))
             for name, chain in chains.items())
    evidence = ["%s is a member of %s" % (chain, kind) for chain, kind in kinds if kind]
    if not evidence:
        return []
    remedy = "If nothing needs it any more, take it out of its volume group or array and wipe it (wipefs) first."
    return [Guard("disk_member", "%s holds a part of a volume." % device.address, _shorten(evidence), remedy)]


def _member_of(root: Root, numbers: str | None) -> str | None:
    """Say what udev saw on a disk that it is part of."""
    found = re.search(r"^E:ID_FS_TYPE=(\S+)$", root.read_text(_UDEV_DATABASE, "b%s" % numbers) or "", re.MULTILINE)
    return _MEMBERS.get(found.group(1)) if found else None


def block_chains(context: GuardContext, device: PciDevice, interfaces: dict[str, str]) -> dict[str, str]:
    """Return every block device on or above the device or its interfaces, each with the chain that leads to it."""
    bases = dict.fromkeys([device.real] + _nvme_subsystems(context, device), "")
    # The disks of FCoE are below an interface, and a VLAN's directory is not below the device's.
    bases.update((context.net_paths.get(name, ""), " on " + chain) for name, chain in interfaces.items())
    chains: dict[str, str] = {}
    for base, below in bases.items():
        for name in context.block_below.get(base, ()):
            chains.setdefault(name, name + below)
    pending = list(chains)
    while pending:
        name = pending.pop()
        for holder in _holders(context, name):
            if holder not in chains and holder in context.block_paths:
                chains[holder] = "%s on %s" % (holder, chains[name])
                pending += [holder] + _partitions(context, holder, chains)
    return chains


def _partitions(context: GuardContext, name: str, chains: dict[str, str]) -> list[str]:
    """Note the partitions of a stacked device, such as md0p1."""
    base = context.block_paths[name] + "/"
    found = [other for other, path in context.block_paths.items() if path.startswith(base) and other not in chains]
    for other in found:
        chains[other] = "%s on %s" % (other, chains[name])
    return found


def _nvme_subsystems(context: GuardContext, device: PciDevice) -> list[str]:
    """With NVMe multipath the disks hang on the subsystem, not on the PCI device."""
    root, base = context.root, "/sys/class/nvme-subsystem"
    controllers = {name for name, path in context.nvme_paths.items() if path.startswith(device.real + "/")}
    if not controllers:
        return []
    return [
        root.target(base, name) for name in root.listdir(base) if controllers.intersection(root.listdir(base, name))
    ]


def _in_btrfs(root: Root, name: str) -> bool:
    """mountinfo names one device of a btrfs; sysfs names all, while it is mounted."""
    return any(root.exists("/sys/fs/btrfs", fs, "devices", name) for fs in root.listdir("/sys/fs/btrfs"))


def read_fstab(root: Root) -> dict[str, str]:
    """Return the block devices that /etc/fstab names, by kernel name, each with its line."""
    found: dict[str, str] = {}
    for fields in (line.split() for line in (root.read_text("/etc/fstab") or "").splitlines()):
        if len(fields) >= 3 and not fields[0].startswith("#"):
            path = _fstab_path(root, unescape(fields[0]))
            if path is not None:
                found.setdefault(os.path.basename(root.realpath(path)), " ".join(fields))
    return found


def _fstab_path(root: Root, source: str) -> str | None:
    if source.startswith("/dev/"):
        return source
    tag, _equals, value = source.partition("=")
    if tag not in _TAGS:
        return None
    # udev writes what would not do in a file's name as \x20 and the like; UUIDs are compared as mount(8) does.
    wanted = re.sub(r"[^\w#+.:=@-]", lambda match: "".join("\\x%02x" % byte for byte in match.group().encode()),
                    value.strip("\"'")).lower()
    directory = "/dev/disk/" + _TAGS[tag]
    return next((directory + "/" + name for name in root.listdir(directory) if name.lower() == wanted), None)


def _is_claimed(root: Root, name: str) -> bool:
    """Whether the kernel holds a disk exclusively: catches what has no link in sysfs, such as ZFS."""
    if not root.is_live:
        return False
    try:
        os.close(os.open("/dev/" + name, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
    except OSError as exc:
        return exc.errno == errno.EBUSY
    return False
