# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packet sockets (AF_PACKET) that receive what is sent to the host, whichever program has them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from typing import NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .modules import module_installed, module_loaded
from .netlink import SOCK_DIAG, attributes_of, dump, messages
from .packet_filter import accepts_traffic
from .processes import borrowed, sockets_of

_TABLE = "/proc/net/packet"
_SOCK_DIAG_BY_FAMILY, _AF_PACKET = 20, 17
_SHOW_INFO, _SHOW_FILTER = 0x01, 0x20
_INFO, _FILTER = 0, 7
_MODULE = "af_packet_diag"
_SO_GET_FILTER = 26
_INSTRUCTION = 8  # bytes of classic BPF
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD


class PacketSocket(NamedTuple):
    """A packet socket that is bound to an interface."""

    ifindex: int
    inode: str
    protocol: int
    code: bytes | None  # its filter, classic BPF

    @property
    def takes_traffic(self) -> bool:
        """Whether it receives ordinary packets to the host.

        A userspace switch (Open vSwitch, VPP), an intrusion prevention system and a capture do. A daemon that waits for
        one protocol (LLDP, DHCP, PTP) has that protocol or a filter, and also listens on unused interfaces.
        """
        if self.protocol not in (_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6):
            return False
        return self.code is None or accepts_traffic(self.code)


def read_packet_sockets(root: Root) -> list[PacketSocket]:
    """Read those of this process's network namespace from the running kernel."""
    listed = parse_table(root.must_read(_TABLE))
    if not listed:
        return []
    release = root.must_read("/proc/sys/kernel/osrelease")
    if not module_loaded(root, _MODULE) and module_installed(root, _MODULE, release):  # asking would load the module
        return _with_filters(root, listed)
    request = struct.pack("=BBHIIII", _AF_PACKET, 0, 0, 0, _SHOW_INFO | _SHOW_FILTER, 0, 0)
    try:
        return parse_packet_sockets(dump(_SOCK_DIAG_BY_FAMILY, request, protocol=SOCK_DIAG))
    except HostError as exc:
        if exc.errno in (errno.ENOENT, errno.EPROTONOSUPPORT):  # a kernel without packet_diag
            return _with_filters(root, listed)
        raise


def _with_filters(root: Root, listed: list[PacketSocket]) -> list[PacketSocket]:
    """Add the filters, as the descriptors of the processes that have the sockets show them."""
    found = {entry.inode: entry for entry in listed}
    for opened in sockets_of(root, found):
        with contextlib.suppress(OSError):  # it has ended, or its filter is of another kind: the filter is not known
            found[opened.path] = found[opened.path]._replace(code=_filter_of(int(opened.pid), int(opened.fd)))
    return list(found.values())


def _filter_of(pid: int, fd: int) -> bytes | None:
    """Return the filter of another process's socket; None if it has none."""
    libc = ctypes.CDLL(None, use_errno=True)

    def get(code: ctypes.Array[ctypes.c_char] | None) -> None:
        if libc.getsockopt(ours, socket.SOL_SOCKET, _SO_GET_FILTER, code, ctypes.byref(count)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    with borrowed(pid, fd) as ours:
        count = ctypes.c_uint32(0)  # of instructions, where other options count bytes
        get(None)
        code = ctypes.create_string_buffer(count.value * _INSTRUCTION)
        get(code)
        return code.raw or None


def parse_table(text: str) -> list[PacketSocket]:
    """Parse /proc/net/packet, which says nothing of filters."""
    rows = [line.split() for line in text.splitlines()[1:]]
    found = [PacketSocket(int(row[4]), row[-1], int(row[3], 16), None) for row in rows if len(row) == 9]
    return [entry for entry in found if entry.ifindex and entry.protocol]


def parse_packet_sockets(data: bytes) -> list[PacketSocket]:
    """Parse a dump of packet_diag."""
    found = []
    for message in messages(data, _SOCK_DIAG_BY_FAMILY, 16):
        protocol, inode = struct.unpack_from("=HI", message, 2)
        attributes = attributes_of(message[16:])
        ifindex = int.from_bytes(attributes.get(_INFO, b"")[:4], sys.byteorder)
        if ifindex and protocol:
            code = attributes.get(_FILTER)
            found.append(PacketSocket(ifindex, str(inode), protocol, bytes(code) if code else None))
    return found
