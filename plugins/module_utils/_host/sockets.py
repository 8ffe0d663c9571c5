# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""This host's connections, by the local address that they are bound to."""

from __future__ import annotations

import ipaddress
import re
import struct
import sys
from typing import Iterator, NamedTuple

from .._base.fs import Root

# The kernel's own connections (NFS, iSCSI, NVMe/TCP, DRBD) are in these tables as well.
_TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6")
_ESTABLISHED, _LISTEN = "01", "0A"
# Established, or on the way there (SYN_SENT, SYN_RECV), or closed by the other end only.
_CONNECTED = ("01", "02", "03", "08")
_ENDPOINT = re.compile(r"(?:[0-9A-Fa-f]{8}|[0-9A-Fa-f]{32}):[0-9A-Fa-f]{4}\Z")


class Connection(NamedTuple):
    """A socket with another end."""

    protocol: str
    address: str
    port: int
    peer: str
    peer_port: int
    incoming: bool  # TCP, established, to a port that somebody listens on

    def __str__(self) -> str:
        if self.incoming:
            return "established TCP connection to port %d from %s" % (self.port, self.peer)
        return "%s connection from port %d to %s port %d" % (self.protocol, self.port, self.peer, self.peer_port)


def read_connections(root: Root) -> list[Connection]:
    """Return every connection of this process's network namespace, in any direction."""
    return [found for table in _TABLES for found in parse_table(table, root.must_read("/proc/net", table))]


def parse_table(table: str, text: str) -> Iterator[Connection]:
    """Parse /proc/net/tcp and the like."""
    rows = [line.split() for line in text.splitlines()[1:]]
    rows = [row for row in rows if len(row) > 3 and _ENDPOINT.match(row[1]) and _ENDPOINT.match(row[2])]
    listening = {_port(row[1]) for row in rows if row[3] == _LISTEN and table.startswith("tcp")}
    for row in rows:
        if row[3] in _CONNECTED:
            port = _port(row[1])
            incoming = row[3] == _ESTABLISHED and port in listening
            yield Connection(table.rstrip("6").upper(), _ip(row[1]), port, _ip(row[2]), _port(row[2]), incoming)


def canonical_ip(text: str) -> str:
    """Return an address without zone, an IPv4-mapped one as IPv4."""
    address = ipaddress.ip_address(text.split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _port(field: str) -> int:
    return int(field.rpartition(":")[2], 16)


def _ip(field: str) -> str:
    raw = bytes.fromhex(field.rpartition(":")[0])
    words = struct.unpack(">%dI" % (len(raw) // 4), raw)
    # The kernel prints each 32-bit word of the address as a number in its own byte order.
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return canonical_ip(str(ipaddress.ip_address(packed)))
