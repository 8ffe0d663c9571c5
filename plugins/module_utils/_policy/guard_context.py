# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guards read of the host, and what they answer."""

from __future__ import annotations

import fnmatch
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host.pci import NET, PciDevice, below
from .kinds import PASSTHROUGH_DRIVERS

if TYPE_CHECKING:
    from .._host.disks import Disks
    from .._host.namespaces import Elsewhere
    from .._host.netlink import NetState
    from .._host.nodes import Nodes
    from .._host.packet_sockets import PacketSocket
    from .._host.sockets import Connection

_SHOWN = 5


class Owner(NamedTuple):
    """A device, or one that is taken along with it; ``prefix`` comes before the names of what it has."""

    device: PciDevice
    prefix: str

    @property
    def is_the_hosts(self) -> bool:
        """Whether a driver of the host is bound to it."""
        return self.device.driver is not None and self.device.driver not in PASSTHROUGH_DRIVERS


class Guard(NamedTuple):
    """One reason, the evidence for it, and what to do about it."""

    kind: str
    message: str
    evidence: list[str]
    remedy: str

    def as_dict(self) -> dict[str, Any]:
        """Return the shape used in module results."""
        return self._asdict()

    def refusal(self) -> HostError:
        """Return the error it is for a device that was asked for."""
        return HostError("guarded_device", self.message, self.evidence, self.remedy)


class GuardContext:
    """What the guards look at, read once for all devices and only if a device needs it.

    The readers are imported where they read: a converged run, which takes no device, needs none of them.
    """

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
        from .._host.namespaces import ensure_ours
        from .._host.netlink import NetState

        if not self.root.is_live:
            return NetState([], [])
        state = NetState.read()
        ensure_ours(self.root)
        return state

    def read_net(self) -> NetState:
        """Return the addresses and routes as they are now, whatever was read before."""
        if not self._asks_the_kernel:
            return self.net
        from .._host.netlink import NetState

        return NetState.read()

    @cached_property
    def elsewhere(self) -> Elsewhere:
        """What other network namespaces have of this host's devices, and on top of this namespace's interfaces."""
        from .._host.namespaces import Elsewhere, look_elsewhere

        return look_elsewhere(self.root) if self.root.is_live else Elsewhere({}, [])

    @cached_property
    def _connections(self) -> list[Connection]:
        from .._host.sockets import read_connections

        return read_connections(self.root)

    @cached_property
    def management_addresses(self) -> dict[str, str]:
        """Local addresses of incoming connections, each with the connection as evidence.

        SSH_CONNECTION names ours, but sudo removes it: every established connection to a listening port counts.
        """
        from .._host.sockets import canonical_ip

        found: dict[str, str] = {}
        words = (self._ssh_connection or "").split()
        # Over anything but TCP, sshd writes UNKNOWN for the addresses.
        if len(words) == 4 and words[2] != "UNKNOWN":
            found[canonical_ip(words[2])] = "SSH_CONNECTION=%s" % " ".join(words)
        for connection in self._connections:
            if connection.incoming:
                found.setdefault(connection.address, str(connection))
        return found

    @cached_property
    def connected_addresses(self) -> dict[str, str]:
        """Local addresses of all other connections, each with one of them as evidence."""
        return {connection.address: str(connection) for connection in self._connections if not connection.incoming}

    @cached_property
    def pppoe(self) -> dict[str, str]:
        """The interfaces that PPPoE sessions go through, each with the other end's MAC address."""
        rows = [line.split() for line in self.root.must_read("/proc/net/pppoe").splitlines()[1:]]
        return {row[-1]: row[1] for row in rows if len(row) == 3}

    @cached_property
    def linked_above(self) -> dict[int | None, list[str]]:
        """The interfaces on top of each one, by the index of the one below, as the kernel's list of them has it."""
        from .._host.namespaces import PAIRS

        found: dict[int | None, list[str]] = {}
        for link in self.net.links:
            if link.lower is not None and not link.elsewhere and link.kind not in PAIRS and link.lower != link.ifindex:
                found.setdefault(link.lower, []).append(link.name)
        return found

    @cached_property
    def xdp_programs(self) -> dict[int, list[str]]:
        """The interfaces whose packets an XDP program sees before the kernel does, each with which it is."""
        return {
            link.ifindex: ["XDP program %s is attached" % (link.xdp or "of several modes")]
            for link in self.net.links
            if link.xdp is not None
        }

    @cached_property
    def packet_sockets(self) -> dict[int, list[str]]:
        """The interfaces whose packets a process receives as the kernel does, each with the process."""
        from .._host.processes import described, socket_owners

        taking = [entry for entry in self._packet_sockets() if entry.takes_traffic]
        owners = socket_owners(self.root, {entry.inode for entry in taking}) if taking else {}
        found: dict[int, list[str]] = {}
        for entry in taking:
            owner = (
                described(self.root, owners[entry.inode]) if entry.inode in owners else "a process that is not shown"
            )
            found.setdefault(entry.ifindex, []).append("packet socket of " + owner)
        return found

    def _packet_sockets(self) -> list[PacketSocket]:
        if not self._asks_the_kernel:
            return []
        from .._host.packet_sockets import read_packet_sockets

        return read_packet_sockets(self.root)

    @cached_property
    def traffic_control(self) -> dict[int, list[str]]:
        """The interfaces that tc, BPF or nftables take packets from or send some to, each with how."""
        if not self._asks_the_kernel:
            return {}
        from .._host.bpf import tcx_programs
        from .._host.bpf_redirects import read_redirects
        from .._host.nftables import read_hooks, read_senders
        from .._host.traffic_control import read_traffic_control

        found = read_traffic_control()
        for ifindex, programs in tcx_programs(link.ifindex for link in self.net.links).items():
            found.setdefault(ifindex, []).extend(programs)
        hooks = read_hooks(self.root)
        for link in self.net.links:
            of_link = [lines for name, lines in hooks.items() if fnmatch.fnmatchcase(link.name, name)]
            found.setdefault(link.ifindex, []).extend(line for lines in of_link for line in lines)
        for sent in (read_redirects(self.root), read_senders(self.root)):
            for link in self.net.links:
                # What is down sends nothing, whoever hands packets to it.
                lines = sent.known.get(link.ifindex, []) + (sent.anywhere if link.is_up else [])
                found.setdefault(link.ifindex, []).extend(lines)
        return found

    @property
    def _asks_the_kernel(self) -> bool:
        return self._net is None and self.root.is_live

    @cached_property
    def nodes(self) -> Nodes:
        """The character devices of the host."""
        from .._host.nodes import Nodes

        return Nodes(self.root)

    @cached_property
    def disks(self) -> Disks:
        """The host's block devices."""
        from .._host.disks import Disks

        return Disks(self.root)

    @cached_property
    def net_paths(self) -> dict[str, str]:
        """Every interface's name and its directory below /sys/devices."""
        return {name: self.root.target(NET, name) for name in self.root.must_list(NET)}

    @cached_property
    def net_below(self) -> dict[str, list[str]]:
        """The interfaces on or below each device that has any."""
        return below(self.net_paths)


def shorten(evidence: list[str]) -> list[str]:
    """Return the first few lines, and how many there are besides."""
    if len(evidence) <= _SHOWN:
        return evidence
    return evidence[:_SHOWN] + ["and %d more" % (len(evidence) - _SHOWN)]
