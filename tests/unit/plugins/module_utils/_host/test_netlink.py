# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rtnetlink: bytes captured from Linux 6.18, and the running kernel itself in a network namespace of its own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from typing import Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import netlink

# 203.0.113.0/24 dev 2 table 7777; 198.18.0.0/15 nhid 9; 198.51.100.0/24 over dev 3 via 192.0.2.2 and over dev 2.
ROUTES4 = bytes.fromhex(
    "340000001800020001000000481e000002180000fc03fd010000000008000f00611e000008000100cb007100080004000200000034000000"
    "1800020001000000481e0000020f0000fe0300010000000008000f00fe00000008000100c612000008001e00090000004800000018000200"
    "01000000481e000002180000fe0300010000000008000f00fe00000008000100c63364001c000900100000000300000008000500c0000202"
    "0800000002000000"
)
# 2001:db8:7::/64 dev 2 table 88; fe80::/64 dev 2; multicast ff00::/8 dev 2, the last two made by the kernel.
ROUTES6 = bytes.fromhex(
    "740000001800020001000000481e00000a400000580300010000000008000f00580000001400010020010db8000700000000000000000000"
    "0800060000040000080004000200000024000c00000000000000000000000000000000000000000000000000000000000000000005001400"
    "00000000740000001800020001000000481e00000a400000fe0200010000000008000f00fe00000014000100fe8000000000000000000000"
    "000000000800060000010000080004000200000024000c000000000000000000000000000000000000000000000000000000000000000000"
    "0500140000000000740000001800020001000000481e00000a080000ff0200050000000008000f00ff00000014000100ff00000000000000"
    "00000000000000000800060000010000080004000200000024000c0000000000000000000000000000000000000000000000000000000000"
    "000000000500140000000000"
)
# 192.0.2.1/24 and 2001:db8::1/64, both on dev 3.
ADDRESSES = bytes.fromhex(
    "4c0000001400020001000000481e0000021880000300000008000100c000020108000200c0000201070003007630000008000800800000"
    "0014000600ffffffffffffffff220e0400220e0400480000001400020001000000481e00000a408200030000001400010020010db80000"
    "0000000000000000000114000600ffffffffffffffff220e0400220e04000800080082000000"
)
# Nexthop objects: 5 is dev 2, 6 is dev 3, 9 is the group of both.
NEXTHOPS = bytes.fromhex(
    "280000006800020001000000481e000002fe00000000000008000100050000000800050002000000300000006800020001000000481e0000"
    "02fd0000000000000800010006000000080005000300000008000600c0000209440000006800020001000000481e00000000000000000000"
    "08000100090000000600030000000000140002000500000000000000060000000000000008000e0000000080"
)


def test_routes_of_both_families_in_any_table() -> None:
    routes = netlink.parse_routes(ROUTES4 + ROUTES6, netlink.parse_nexthops(NEXTHOPS))
    assert [(str(route), route.ifindexes) for route in routes] == [
        ("inet route 203.0.113.0/24 in table 7777", (2,)),
        ("inet route 198.18.0.0/15 in table main", (2, 3)),
        ("inet route 198.51.100.0/24 in table main", (2, 3)),
        ("inet6 route 2001:db8:7::/64 in table 88", (2,)),
        ("inet6 route fe80::/64 in table main", (2,)),
        ("inet6 route ff00::/8 in table local", (2,)),
    ]
    assert [route.kernel_link_local for route in routes] == [False, False, False, False, True, True]


def test_a_link_local_route_somebody_configured_is_not_the_kernels() -> None:
    # rtm_protocol of the second message: 2 (kernel) becomes 4 (static).
    static = bytearray(ROUTES6)
    static[116 + 16 + 5] = 4
    assert [route.kernel_link_local for route in netlink.parse_routes(bytes(static))] == [False, False, True]


def test_nexthop_objects() -> None:
    assert netlink.parse_nexthops(NEXTHOPS) == {5: [2], 6: [3], 9: [2, 3]}


def test_addresses() -> None:
    assert netlink.parse_addresses(ADDRESSES) == [(3, "192.0.2.1", 24), (3, "2001:db8::1", 64)]


@pytest.mark.parametrize("cut", [3, 15, 17, 30, 51])
@pytest.mark.parametrize("filled", [False, True])
def test_half_an_answer_is_an_error_and_not_a_shorter_answer(cut: int, filled: bool) -> None:
    assert netlink.parse_routes(b"") == []
    with pytest.raises(HostError, match="not whole"):
        netlink.parse_routes(ROUTES4[:cut].ljust(54, b"\0") if filled else ROUTES4[:cut])


class FakeSocket:
    """Answers each request for a dump with the same bytes."""

    def __init__(self, chunk: bytes, flags: int = 0) -> None:
        self._answer = (chunk, [], flags, None)

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_args: object) -> None:
        pass

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args: None

    def recvmsg(self, _size: int) -> tuple:
        return self._answer


def done(code: int) -> bytes:
    return struct.pack("=IHHIIi", 20, 3, 2, 1, 0, code)


@pytest.mark.parametrize("code,name", [(12, "Cannot allocate memory"), (1, "Operation not permitted")])
@pytest.mark.parametrize("before", [b"", ROUTES4])
def test_a_dump_that_fails_on_the_way_is_an_error(
    monkeypatch: pytest.MonkeyPatch, code: int, name: str, before: bytes
) -> None:
    """NLMSG_DONE ends it all the same; its payload has the error."""
    monkeypatch.setattr(socket, "socket", lambda *_args: FakeSocket(before + done(-code)))
    for absent in ((), [errno.EOPNOTSUPP]):
        with pytest.raises(HostError, match=name):
            netlink.dump(26, b"", absent)
    monkeypatch.setattr(socket, "socket", lambda *_args: FakeSocket(before + done(0)))
    assert netlink.dump(26, b"") == before


def test_only_a_kernel_that_does_not_know_a_kind_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        socket, "socket", lambda *_args: FakeSocket(struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -95) + bytes(16))
    )
    assert netlink.dump(106, b"", [errno.EOPNOTSUPP]) == b""
    with pytest.raises(HostError, match="not supported"):
        netlink.dump(26, b"")


def test_an_answer_that_did_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_args: FakeSocket(ROUTES4 + done(0), socket.MSG_TRUNC))
    with pytest.raises(HostError, match="larger than"):
        netlink.dump(26, b"")


def test_unreadable_routes_are_an_error_not_an_empty_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(HostError, match="routes and addresses could not be read"):
        netlink.NetState.read()


_SETUP = """set -e
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
ip addr add 192.0.2.1/24 dev v0
ip addr add 2001:db8::1/64 dev v0 nodad
ip route add 203.0.113.0/24 dev v1 table 7777
ip -6 route add 2001:db8:7::/64 dev v1 table 88
ip nexthop add id 5 dev v1
ip route add 198.18.0.0/15 nhid 5
# Since 5.8: then the route itself names no interface any more.
if [ -w /proc/sys/net/ipv4/nexthop_compat_mode ]; then echo 0 > /proc/sys/net/ipv4/nexthop_compat_mode; fi
"""
_READ = """
import json, socket
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
state = NetState.read()
name = socket.if_indextoname
print(json.dumps({
    "addresses": [[name(one.ifindex), one.address] for one in state.addresses],
    "routes": [[one.destination, one.table, [name(index) for index in one.ifindexes]]
               for one in state.routes if not one.kernel_link_local],
}))
"""


def _namespace_works() -> bool:
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        return False
    probe = ["unshare", "--net", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _namespace_works(), reason="needs root, iproute2, network namespaces and veth")
def test_the_running_kernel() -> None:
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    script = _SETUP + "exec %s -c '%s'" % (sys.executable, _READ)
    command = ["unshare", "--net", "sh", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert ["v0", "192.0.2.1"] in seen["addresses"] and ["v0", "2001:db8::1"] in seen["addresses"]
    for route in (
        ["203.0.113.0/24", "7777", ["v1"]],
        ["2001:db8:7::/64", "88", ["v1"]],
        ["198.18.0.0/15", "main", ["v1"]],
        ["192.0.2.0/24", "main", ["v0"]],
        ["192.0.2.1/32", "local", ["v0"]],
    ):
        assert route in seen["routes"]
    assert not any(route[0].startswith(("fe80", "ff00")) for route in seen["routes"])


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


@pytest.mark.parametrize("attached,program,expected", [(0, None, None), (1, 42, 42), (2, 7, 7), (4, None, 0)])
def test_the_xdp_program_of_a_link(attached: int, program: int | None, expected: int | None) -> None:
    xdp = _attribute(2, bytes([attached])) + (_attribute(4, struct.pack("=I", program)) if program else b"")
    body = struct.pack("=BxHiII", 0, 1, 5, 0, 0) + _attribute(3, b"eth0\0") + _attribute(43, xdp)
    links = netlink.parse_links(struct.pack("=IHHII", 16 + len(body), 16, 0, 0, 0) + body)
    assert [(link.name, link.ifindex, link.xdp) for link in links] == [("eth0", 5, expected)]
