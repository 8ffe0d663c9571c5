# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses, routes of every family and table, and links, each read by one rtnetlink dump.

The parsers are pure functions over the dumped bytes. No program is run: ``ip`` may be missing, and its output is not an
interface.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import sys
from typing import Collection, Iterator, NamedTuple, Sequence

from .._base.errors import HostError

ROUTE, SOCK_DIAG, NETFILTER = 0, 4, 12
_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTM_NEWNEXTHOP, _RTM_GETNEXTHOP = 104, 106
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLM_F_DUMP_INTR = 0x10
_BUFFER = 1 << 17

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_NH_ID = 1, 4, 5, 9, 15, 30
_NHA_ID, _NHA_GROUP, _NHA_OIF = 1, 2, 5
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_LINK_NETNSID, _IFLA_INFO_KIND = 3, 5, 18, 37, 1
_IFLA_XDP, _IFLA_PARENT_DEV_NAME, _IFLA_PARENT_DEV_BUS_NAME = 43, 56, 57
_IFLA_XDP_ATTACHED, _IFLA_XDP_PROG_ID = 2, 4
_RTM_F_CLONED = 0x200
_IFF_UP = 1
# Who made a route: 0 to 2 are the kernel itself, everything above is an administrator or a daemon.
_LAST_KERNEL_PROTOCOL = 2
_LINK_LOCAL = (ipaddress.ip_network("fe80::/10"), ipaddress.ip_network("ff00::/8"))
_TABLES = {253: "default", 254: "main", 255: "local"}
_AF_MPLS = 28
_FAMILIES = {socket.AF_INET: "inet", socket.AF_INET6: "inet6", _AF_MPLS: "mpls"}


class Address(NamedTuple):
    """An address on an interface."""

    ifindex: int
    address: str
    prefixlen: int


class Route(NamedTuple):
    """A route and every interface it leaves through."""

    family: str
    table: str
    destination: str
    gateway: str | None
    ifindexes: tuple[int, ...]
    kernel_link_local: bool

    def __str__(self) -> str:
        via = " via " + self.gateway if self.gateway else ""
        return "%s route %s%s in table %s" % (self.family, self.destination, via, self.table)


class Link(NamedTuple):
    """An interface, the one below it, and the device that it belongs to."""

    name: str
    kind: str | None
    lower: int | None
    elsewhere: bool  # the lower one is in another network namespace
    bus: str | None = None  # pci, virtio, usb: since Linux 5.14
    device: str | None = None  # its name on that bus
    ifindex: int = 0
    xdp: int | None = None  # number of the XDP program that is attached; 0 if there are several, in several modes
    is_up: bool = False  # administratively


class NetState(NamedTuple):
    """What the kernel's network configuration says."""

    addresses: list[Address]
    routes: list[Route]
    links: Sequence[Link] = ()

    @classmethod
    def read(cls) -> NetState:
        """Ask the running kernel."""
        nexthops = parse_nexthops(dump(_RTM_GETNEXTHOP, struct.pack("=BBBBI", 0, 0, 0, 0, 0), [errno.EOPNOTSUPP]))
        return cls(
            parse_addresses(dump(_RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0))),
            parse_routes(dump(_RTM_GETROUTE, struct.pack("=BBBBBBBBI", *([0] * 9))), nexthops),
            read_links(),
        )


def messages(data: bytes, wanted: int, header: int) -> Iterator[memoryview]:
    """Yield the payloads of one type of message, which begin with a header of that size.

    Half an answer is an error: a guard would miss what it leaves out.
    """
    view, offset = memoryview(data), 0
    while offset < len(data):
        if offset + 16 > len(data):
            raise _malformed(wanted, "%d bytes are left over" % (len(data) - offset))
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16 or offset + length > len(data) or (kind == wanted and length < 16 + header):
            raise _malformed(wanted, "a message claims %d of %d bytes" % (length, len(data) - offset))
        if kind == wanted:
            yield view[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def attributes_of(payload: memoryview) -> dict[int, memoryview]:
    """Return the attributes of a message, or those nested in one, by type."""
    return dict(each_attribute(payload))


def each_attribute(payload: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield each attribute with its type, which in a list is the same for all."""
    offset = 0
    while offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if length < 4 or offset + length > len(payload):
            raise _malformed(kind, "an attribute claims %d of %d bytes" % (length, len(payload) - offset))
        yield kind & 0x3FFF, payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute as a message has it."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def text_of(attributes: dict[int, memoryview], kind: int) -> str | None:
    """Return an attribute that is text."""
    raw = attributes.get(kind)
    return None if raw is None else bytes(raw).rstrip(b"\0").decode("utf-8", "replace")


def _u32(raw: memoryview) -> int:
    return int.from_bytes(raw[:4], sys.byteorder)


def _ip(raw: memoryview) -> str:
    return str(ipaddress.ip_address(bytes(raw))) if len(raw) in (4, 16) else bytes(raw).hex()


def read_links() -> list[Link]:
    """Read the links of the calling thread's network namespace from the running kernel."""
    return parse_links(dump(_RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)))


def parse_links(data: bytes) -> list[Link]:
    """Parse an RTM_GETLINK dump."""
    links = []
    for message in messages(data, _RTM_NEWLINK, 16):
        attributes = attributes_of(message[16:])
        info = attributes_of(attributes.get(_IFLA_LINKINFO, memoryview(b"")))
        links.append(
            Link(
                text_of(attributes, _IFLA_IFNAME) or "",
                text_of(info, _IFLA_INFO_KIND),
                _u32(attributes[_IFLA_LINK]) if _IFLA_LINK in attributes else None,
                _IFLA_LINK_NETNSID in attributes,
                text_of(attributes, _IFLA_PARENT_DEV_BUS_NAME),
                text_of(attributes, _IFLA_PARENT_DEV_NAME),
                struct.unpack_from("=i", message, 4)[0],
                _xdp(attributes_of(attributes.get(_IFLA_XDP, memoryview(b"")))),
                bool(struct.unpack_from("=I", message, 8)[0] & _IFF_UP),
            )
        )
    return links


def _xdp(attributes: dict[int, memoryview]) -> int | None:
    if not any(attributes.get(_IFLA_XDP_ATTACHED, b"")):
        return None
    return _u32(attributes[_IFLA_XDP_PROG_ID]) if _IFLA_XDP_PROG_ID in attributes else 0


def parse_addresses(data: bytes) -> list[Address]:
    """Parse an RTM_GETADDR dump."""
    addresses = []
    for message in messages(data, _RTM_NEWADDR, 8):
        _family, prefixlen, _flags, _scope, ifindex = struct.unpack_from("=BBBBI", message)
        attributes = attributes_of(message[8:])
        # On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL is ours wherever it exists.
        raw = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS))
        if raw is not None:
            addresses.append(Address(ifindex, _ip(raw), prefixlen))
    return addresses


def parse_nexthops(data: bytes) -> dict[int, list[int]]:
    """Parse an RTM_GETNEXTHOP dump into the interfaces behind each nexthop object, groups resolved."""
    direct: dict[int, list[int]] = {}
    members: dict[int, list[int]] = {}
    for message in messages(data, _RTM_NEWNEXTHOP, 8):
        attributes = attributes_of(message[8:])
        if _NHA_ID not in attributes:
            continue
        number = _u32(attributes[_NHA_ID])
        if _NHA_OIF in attributes:
            direct[number] = [_u32(attributes[_NHA_OIF])]
        group = attributes.get(_NHA_GROUP, memoryview(b""))
        members[number] = [_u32(group[at:]) for at in range(0, len(group) - 7, 8)]
    for number, ids in members.items():
        direct.setdefault(number, []).extend(index for member in ids for index in direct.get(member, []))
    return direct


def parse_routes(data: bytes, nexthops: dict[int, list[int]] | None = None) -> list[Route]:
    """Parse an RTM_GETROUTE dump; routes that leave through no interface are left out."""
    routes = []
    for message in messages(data, _RTM_NEWROUTE, 12):
        family, dst_len, _src_len, _tos, table, protocol, _scope, _kind, flags = struct.unpack_from(
            "=BBBBBBBBI", message
        )
        if flags & _RTM_F_CLONED:  # a cached copy of another route
            continue
        attributes = attributes_of(message[12:])
        ifindexes = [_u32(attributes[_RTA_OIF])] if _RTA_OIF in attributes else []
        ifindexes += _multipath(attributes.get(_RTA_MULTIPATH, memoryview(b"")))
        if _RTA_NH_ID in attributes:
            ifindexes += (nexthops or {}).get(_u32(attributes[_RTA_NH_ID]), [])
        if not ifindexes:
            continue
        number = _u32(attributes[_RTA_TABLE]) if _RTA_TABLE in attributes else table
        routes.append(
            Route(
                _FAMILIES.get(family, "family %d" % family),
                _TABLES.get(number, str(number)),
                _destination(family, attributes.get(_RTA_DST), dst_len),
                _ip(attributes[_RTA_GATEWAY]) if _RTA_GATEWAY in attributes else None,
                tuple(sorted(set(ifindexes))),
                protocol <= _LAST_KERNEL_PROTOCOL and _is_link_local(attributes.get(_RTA_DST)),
            )
        )
    return routes


def _destination(family: int, raw: memoryview | None, length: int) -> str:
    if raw is None:
        return "default"
    if family == _AF_MPLS:
        return "label %d" % (struct.unpack_from(">I", raw)[0] >> 12)
    return "%s/%d" % (_ip(raw), length)


def _is_link_local(raw: memoryview | None) -> bool:
    if raw is None or len(raw) != 16:
        return False
    address = ipaddress.ip_address(bytes(raw))
    return any(address in network for network in _LINK_LOCAL)


def _multipath(raw: memoryview) -> list[int]:
    found, offset = [], 0
    while offset + 8 <= len(raw):
        length, _flags, _hops, ifindex = struct.unpack_from("=HBBi", raw, offset)
        if length < 8:
            break
        found.append(ifindex)
        offset += (length + 3) & ~3
    return found


def dump(kind: int, body: bytes, absent: Collection[int] = (), protocol: int = ROUTE) -> bytes:
    """Dump one kind of object. ``absent``: the errors of a kernel that does not know the kind, and has none of it."""
    data, interrupted = b"", True
    for _attempt in range(5):
        try:
            part, interrupted = _dump_once(kind, body, protocol)
        except OSError as exc:
            # Any other error may hide objects that exist: what cannot be allocated is not absent.
            if exc.errno in absent:
                return b""
            raise _unreadable(kind, exc) from exc
        if not interrupted:
            return part
        data += part
    # The tables change all the time (a router): what any of the tries saw counts, which is the safe side for a guard.
    return data


def exchange(kind: int, flags: int, body: bytes) -> bytes:
    """Send one request to rtnetlink; return the answer, or nothing if the kernel just confirms. Raise its error."""
    with _asked(kind, flags, body, ROUTE) as sock:
        answer = _receive(sock)
    if struct.unpack_from("=H", answer, 4)[0] != _NLMSG_ERROR:
        return answer
    code = -struct.unpack_from("=i", answer, 16)[0]
    if code:
        raise OSError(code, os.strerror(code))
    return b""


@contextlib.contextmanager
def _asked(kind: int, flags: int, body: bytes, protocol: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
        sock.bind((0, 0))
        sock.settimeout(10)
        header = struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | flags, 1, 0)
        sock.sendto(header + body, (0, 0))
        yield sock


def _receive(sock: socket.socket) -> bytes:
    chunk, _ancillary, message_flags, _sender = sock.recvmsg(_BUFFER)
    if message_flags & socket.MSG_TRUNC:
        raise OSError(errno.EMSGSIZE, "an answer is larger than %d bytes" % _BUFFER)
    return chunk


def _dump_once(kind: int, body: bytes, protocol: int) -> tuple[bytes, bool]:
    chunks, interrupted = [], False
    with _asked(kind, _NLM_F_DUMP, body, protocol) as sock:
        while True:
            chunk = _receive(sock)
            end, flags = _scan(chunk)
            interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
            chunks.append(chunk[:end])
            if end < len(chunk):
                return b"".join(chunks), interrupted


def _scan(chunk: bytes) -> tuple[int, int]:
    """Return where the closing message of a dump begins (or the end), and the flags of all before; raise its error."""
    offset = seen = 0
    while offset + 16 <= len(chunk):
        length, answer, flags = struct.unpack_from("=IHH", chunk, offset)
        seen |= flags
        if answer in (_NLMSG_ERROR, _NLMSG_DONE):
            # A dump that fails on the way ends with NLMSG_DONE, too: its payload is 0 only if the dump is whole.
            code = -struct.unpack_from("=i", chunk, offset + 16)[0] if length >= 20 else 0
            if code > 0 or answer == _NLMSG_ERROR:
                raise OSError(code, os.strerror(code))
            return offset, seen
        offset += max((length + 3) & ~3, 16)
    return len(chunk), seen


def _unreadable(kind: int, exc: OSError) -> HostError:
    # Without the routes no guard can vouch for a device: refuse instead of guessing.
    return HostError(
        "netlink",
        "The kernel's routes and addresses could not be read: %s." % exc.strerror,
        evidence=["rtnetlink dump, message type %d: %s" % (kind, exc)],
        remedy="Run with become: true and outside of sandboxes that filter AF_NETLINK.",
        errno=exc.errno,
    )


def _malformed(kind: int, what: str) -> HostError:
    return HostError(
        "netlink",
        "The kernel's routes and addresses could not be read: the answer is not whole.",
        evidence=["rtnetlink, type %d: %s" % (kind, what)],
        remedy="Run again; if that does not help, this kernel's rtnetlink differs from the one that is known here.",
    )
