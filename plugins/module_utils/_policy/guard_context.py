# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guards look at, and the shape of what they say."""

from __future__ import annotations

import ipaddress
import struct
import sys
from functools import cached_property
from typing import NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host.disks import Disks
from .._host.namespaces import Elsewhere, ensure_ours, look_elsewhere
from .._host.netlink import NetState, read_links
from .._host.pci import NET, below
from .._host.processes import name_of, sockets_of

_SHOWN = 5


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
    def elsewhere(self) -> Elsewhere:
        """What other network namespaces have of this host's devices, and on top of this namespace's interfaces."""
        return look_elsewhere(self.root) if self.root.is_live else Elsewhere({}, [])

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
    def xdp_programs(self) -> dict[int, str]:
        """The interfaces whose packets an XDP program sees before the kernel does, each with which it is."""
        links = read_links() if self._net is None and self.root.is_live else []
        return {
            link.index: "XDP program %s is attached" % (link.xdp or "of several modes")
            for link in links
            if link.xdp is not None
        }

    @cached_property
    def vswitch_sockets(self) -> dict[int, str]:
        """The interfaces that Open vSwitch's userspace datapath receives from as the kernel's, each with the process.

        In its kernel datapath no port has such a socket, and the interface ovs-system on top of it instead.
        """
        rows = [line.split() for line in (self.root.read_text("/proc/net/packet") or "").splitlines()[1:]]
        indexes = {row[-1]: int(row[4]) for row in rows if len(row) == 9 and row[4] != "0"}
        owners = sockets_of(self.root, "ovs-vswitchd") if indexes else {}
        return {
            index: "packet socket of process %s (%s)" % (owners[inode], name_of(self.root, owners[inode]))
            for inode, index in indexes.items()
            if inode in owners
        }

    @cached_property
    def disks(self) -> Disks:
        """The host's block devices."""
        return Disks(self.root)

    @cached_property
    def net_paths(self) -> dict[str, str]:
        """Every interface's name and its directory below /sys/devices."""
        return {name: self.root.target(NET, name) for name in self.root.listdir(NET)}

    @cached_property
    def net_below(self) -> dict[str, list[str]]:
        """The interfaces on or below each device that has any."""
        return below(self.net_paths)


def shorten(evidence: list[str]) -> list[str]:
    """Return the first few lines, and how many there are besides."""
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
