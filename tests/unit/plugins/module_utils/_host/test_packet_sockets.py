# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who receives or redirects packets before the host: bytes captured from Linux 6.18, and filters that are tried."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import packet_sockets
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.nftables import (
    Senders,
    add_senders,
    parse_chains,
    parse_flowtables,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.packet_filter import accepts_traffic
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.packet_sockets import parse_packet_sockets
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.traffic_control import (
    parse_hooks,
    parse_redirections,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

# The queueing discipline clsact of interface 3.
QDISC = bytes.fromhex(
    "3c00000024000200010000005c00000000000000030000000000fffff1ffffff010000000b000100636c73616374000004000200"
    "05000c0000000000"
)
# One action: it redirects what leaves to interface 2.
MIRRED = bytes.fromhex(
    "d000000032000200010000005c000000000000000800030000000000b4000100b00000000b0001006d697272656400004400040014000100"
    "d0572f07000000007c9719000000000014000700000000000000000000000000000000001800030000000000000000000000000000000000"
    "000000000c000900000000000300000008000a000000000048000200200002000100000000000000040000000100000001000000010000000"
    "200000024000100a901000000000000000000000000000000000000000000006c01000000000000"
)
# Two sockets on interface 2 for all protocols: one with Open vSwitch's filter, one without any.
SOCKETS = bytes.fromhex(
    "6800000014000200010000005c000000110303003d99020005100000000000001c0000000200000000000000000000000000000000000000"
    "010000000800050000000000240007002800000004f0ffff1500000104000000060000000000000006000000ffff0000"
    "4400000014000200010000005c000000110303009099020006100000000000001c0000000200000000000000000000000000000000000000"
    "010000000800050000000000"
)


def test_what_traffic_control_has_on_an_interface_and_sends_to_one() -> None:
    assert parse_hooks(QDISC) == {3: ["it has the queueing discipline clsact"]}
    assert parse_hooks(QDISC.replace(b"clsact", b"noqeue")) == {}
    assert parse_redirections(MIRRED) == {2: ["mirred action 1 redirects packets of another interface to it"]}
    assert parse_redirections(b"") == parse_hooks(b"") == {}


@pytest.mark.parametrize("parse", [parse_hooks, parse_redirections, parse_packet_sockets])
@pytest.mark.parametrize("data", [QDISC, MIRRED, SOCKETS])
@pytest.mark.parametrize("cut", [1, 5, 17, 40])
def test_half_an_answer_is_an_error(parse: Callable[[bytes], object], data: bytes, cut: int) -> None:
    with pytest.raises(HostError, match="not whole"):
        parse(data[:-cut])


def test_packet_sockets_come_with_their_filters() -> None:
    found = parse_packet_sockets(SOCKETS)
    assert [(sock.ifindex, sock.inode, sock.protocol, len(sock.code or b"")) for sock in found] == [
        (2, "170301", 3, 32),
        (2, "170384", 3, 0),
    ]
    assert all(sock.takes_traffic for sock in found)
    assert not found[1]._replace(protocol=0x88F7).takes_traffic


# As `nft add chain netdev t c { type filter hook ingress devices = { eth1, eth2 } }`, and a flowtable of both.
def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def test_chains_and_flowtables_of_nftables_name_interfaces() -> None:
    devices = attribute(1, b"eth1\0") + attribute(2, b"eth")  # the latter since Linux 6.16: eth*
    names = attribute(1, b"t\0")
    for parse, kind, body, what in (
        (parse_chains, 3, attribute(3, b"c\0") + attribute(4, attribute(4, devices)), "chain c"),
        (parse_chains, 3, attribute(3, b"c\0") + attribute(4, attribute(3, b"eth1\0")), "chain c"),
        (parse_chains, 3, attribute(3, b"input\0") + attribute(4, attribute(1, bytes(4))), None),
        (parse_flowtables, 22, attribute(2, b"f\0") + attribute(3, attribute(3, devices)), "flowtable f"),
    ):
        data = bytes(4) + names + body
        found = parse(struct.pack("=IHHII", 16 + len(data), 10 << 8 | kind, 2, 1, 0) + data)
        assert found.get("eth1") == (["nftables %s of table t" % what] if what else None)
        assert not found or set(found) in ({"eth1"}, {"eth1", "eth*"})
        with pytest.raises(HostError, match="not whole"):
            parse(struct.pack("=IHHII", 16 + len(data), 10 << 8 | kind, 2, 1, 0) + data[:-1])


# As `nft add rule netdev t c fwd to eth1`, and its kin.
def expression(name: bytes, data: bytes = b"") -> bytes:
    return attribute(1, attribute(1, name + b"\0") + attribute(2, data))


def register(kind: int, number: int) -> bytes:
    return attribute(kind, struct.pack(">I", number))


def immediate(number: int, value: bytes) -> bytes:
    return expression(b"immediate", register(1, number) + attribute(2, attribute(1, value)))


ETH1, ADDRESS = struct.pack("=I", 7), bytes([10, 0, 0, 1])
KNOWN = {7: ["nftables chain c of table t sends packets of other interfaces to it"]}


@pytest.mark.parametrize(
    "expressions, known, anywhere",
    [
        (immediate(1, ETH1) + expression(b"fwd", register(1, 1)), KNOWN, 0),
        (immediate(1, ETH1) + expression(b"dup", register(2, 1)), KNOWN, 0),
        (immediate(2, ADDRESS) + immediate(1, ETH1) + expression(b"dup", register(1, 2) + register(2, 1)), KNOWN, 0),
        (immediate(1, ADDRESS) + expression(b"dup", register(1, 1)), {}, 0),  # by the host's own routes
        (expression(b"meta") + expression(b"lookup") + expression(b"fwd", register(1, 1)), {}, 1),
        (immediate(1, ETH1) + expression(b"lookup") + expression(b"fwd", register(1, 1)), {}, 1),
        (immediate(1, ETH1) + expression(b"fwd", register(1, 2)), {}, 1),
        (expression(b"counter"), {}, 0),
        (expression(b"log", attribute(2, b"fwd\0")), {}, 0),
    ],
)
def test_rules_of_nftables_that_send_packets_elsewhere(
    expressions: bytes, known: dict[int, list[str]], anywhere: int
) -> None:
    data = bytes(4) + attribute(1, b"t\0") + attribute(2, b"c\0") + attribute(4, expressions)
    data = struct.pack("=IHHII", 16 + len(data), 10 << 8 | 6, 2, 1, 0) + data
    found = Senders({}, [])
    add_senders(found, data)
    assert found.known == known and len(found.anywhere) == anywhere
    with pytest.raises(HostError, match="not whole"):
        add_senders(found, data[:-1])


def test_without_packet_diag_no_filter_is_known(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> bytes:
        raise HostError("netlink", "The kernel has none.", errno=errno.ENOENT)

    monkeypatch.setattr(packet_sockets, "dump", refuse)
    assert packet_sockets.read_packet_sockets(tree.root) == []
    rows = "00000000 3      3    %s   %d     1 0      0      800%d"
    head = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
    tree.file(
        "/proc/net/packet", head + "\n".join(rows % row for row in (("0003", 2, 1), ("0003", 0, 2), ("88cc", 2, 3)))
    )
    found = packet_sockets.read_packet_sockets(tree.root)
    assert [(sock.ifindex, sock.inode, sock.takes_traffic) for sock in found] == [(2, "8001", True), (2, "8003", False)]


@pytest.mark.skipif(os.geteuid() != 0, reason="making a packet socket takes CAP_NET_RAW")
@pytest.mark.parametrize(
    "instructions", [[], [(0x28, 0, 0, 12), (0x15, 0, 1, 0x88CC), (0x06, 0, 0, 96), (0x06, 0, 0, 0)]]
)
def test_a_filter_is_read_without_loading_a_module(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, instructions: list[tuple[int, int, int, int]]
) -> None:
    """A socket of this very process: its descriptor shows the filter that packet_diag would."""
    tree.file("/proc/sys/kernel/osrelease", "6.1")
    tree.file("/lib/modules/6.1/modules.dep", "kernel/net/packet/af_packet_diag.ko:")
    monkeypatch.setattr(packet_sockets, "dump", lambda *_args, **_options: pytest.fail("the module would be loaded"))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as ours:
        if instructions:
            program = ctypes.create_string_buffer(code(*instructions))
            ours.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", len(instructions), ctypes.addressof(program)))
        ours.bind(("lo", 3))
        inode = os.fstat(ours.fileno()).st_ino
        head = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
        tree.file("/proc/net/packet", head + "00000000 3      3    0003   1     1 0      0      %d" % inode)
        tree.dir("/proc/%d/fd" % os.getpid())
        tree.at("/proc/%d/fd/%d" % (os.getpid(), ours.fileno())).symlink_to("socket:[%d]" % inode)
        found = packet_sockets.read_packet_sockets(tree.root)
    assert [(entry.inode, entry.code, entry.takes_traffic) for entry in found] == [
        (str(inode), code(*instructions) or None, not instructions)
    ]


def code(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


ALL, NONE = (0x06, 0, 0, 65535), (0x06, 0, 0, 0)
ETHERTYPE, PACKET_TYPE = (0x28, 0, 0, 12), (0x28, 0, 0, 0xFFFFF004)


@pytest.mark.parametrize(
    "program,accepted",
    [
        (code(ALL), True),
        (code(NONE), False),
        (code(ETHERTYPE, (0x15, 0, 1, 0x88CC), ALL, NONE), False),  # LLDP
        (code(ETHERTYPE, (0x15, 0, 1, 0x86DD), ALL, NONE), True),
        (code(PACKET_TYPE, (0x15, 0, 1, 4), NONE, ALL), True),  # all that comes in
        # tcp port 22 over IPv4, as tcpdump compiles it; and port 23.
        *[
            (
                code(
                    ETHERTYPE,
                    (0x15, 0, 8, 0x0800),
                    (0x30, 0, 0, 23),
                    (0x15, 0, 6, 6),
                    (0x28, 0, 0, 20),
                    (0x45, 4, 0, 0x1FFF),
                    (0xB1, 0, 0, 14),
                    (0x48, 0, 0, 16),
                    (0x15, 0, 1, port),
                    ALL,
                    NONE,
                ),
                port == 22,
            )
            for port in (22, 23)
        ],
        # Arithmetic, memory, X, and a jump that always is taken: 3 * 4 - 12 == 0.
        (
            code((0, 0, 0, 3), (0x24, 0, 0, 4), (0x02, 0, 0, 5), (0x61, 0, 0, 5), (0x87, 0, 0, 0), (0x14, 0, 0, 12),
                 (0x15, 0, 2, 0), (0x05, 0, 0, 0), ALL, NONE),
            True,
        ),
        (code((0x80, 0, 0, 0), (0x16, 0, 0, 0)), True),  # returns the length, which is in A
        (code((0x20, 0, 0, 5000), ALL), False),  # beyond the end of every packet
        (code((0xFFFF & ~7 | 4, 0, 0, 1), NONE), True),  # no such instruction
        (b"", True),
        (code((0x05, 0, 0, 100)), True),  # a jump out of the program
    ],
)  # fmt: skip
def test_a_filter_is_tried_with_ordinary_packets(program: bytes, accepted: bool) -> None:
    assert accepts_traffic(program) is accepted
