# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guards: the interface over which the host is managed."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import sockets
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import Address, NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.tests.unit.support.connections import (
    TCP,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC, guards, kinds
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

TCP6 = """  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 0 0
   1: 0000000000000000FFFF00000800000A:0016 0000000000000000FFFF00000200000A:C350 01 00000000:00000000 0 0
   2: B80D0120000000000000000005000000:0016 B80D0120000000000000000002000000:C350 01 00000000:00000000 0 0"""


def test_incoming_connections_are_those_to_listening_ports() -> None:
    found = list(sockets.parse_table("tcp", TCP))
    assert [(row.address, row.port, row.peer, row.incoming) for row in found] == [
        ("10.0.0.5", 22, "10.0.0.2", True),
        ("10.0.0.6", 40000, "10.0.0.2", False),
    ]
    assert [(row.address, row.incoming) for row in sockets.parse_table("tcp6", TCP6)] == [
        ("10.0.0.8", True),
        ("2001:db8::5", True),
    ]


# A connection from fe80::5 to fe80::2: iSCSI over TCP; and of UDP, one that is connected and one that is not.
LINK_LOCAL = """  sl  local_address                         remote_address                        st
   0: 000080FE000000000000000005000000:%s 000080FE000000000000000002000000:%s %s 00000000:00000000 0 0"""


@pytest.mark.parametrize(
    "table,state,guarded",
    [("tcp6", "01", True), ("tcp6", "02", True), ("tcp6", "06", False), ("udp6", "01", True), ("udp6", "07", False)],
)
def test_an_outgoing_connection_over_a_link_local_address_counts(
    nic: Tree, table: str, state: str, guarded: bool
) -> None:
    index = nic.root.read_int("/sys/class/net/eth1/ifindex")
    nic.file("/proc/net/" + table, LINK_LOCAL % ("9C40", "0CBC", state))
    net = NetState([Address(index, "fe80::5", 64)], [Route("inet6", "main", "fe80::/64", None, (index,), True)])
    found = guards(nic, NIC, net)
    assert kinds(found) == (["connection"] if guarded else [])
    said = "address fe80::5/64 on eth1; %s connection from port 40000 to fe80::2 port 3260" % table[:3].upper()
    assert not guarded or found[0].evidence == [said]


@pytest.mark.parametrize("source", ["proc", "environment"])
def test_the_management_address_is_found(nic: Tree, source: str) -> None:
    index = nic.net("bond0.7")
    nic.stack("bond0.7", "eth1")
    ssh = None
    if source == "proc":
        nic.file("/proc/net/tcp", TCP)
    else:
        ssh = "10.0.0.2 50000 10.0.0.5 22"
    found = guards(nic, NIC, NetState([Address(index, "10.0.0.5", 24)], []), ssh)
    assert kinds(found) == ["management"]
    assert "address 10.0.0.5/24 on bond0.7 on eth1" in found[0].evidence[0]
    assert "10.0.0.2" in found[0].evidence[0]


def test_a_link_local_management_connection_counts_although_its_routes_do_not(nic: Tree) -> None:
    index = nic.root.read_int("/sys/class/net/eth1/ifindex")
    net = NetState([Address(index, "fe80::5", 64)], [Route("inet6", "main", "fe80::/64", None, (index,), True)])
    assert kinds(guards(nic, NIC, net, "fe80::2%eth1 50000 fe80::5%eth1 22")) == ["management"]


def test_ssh_over_something_else_than_tcp_is_no_address(tree: Tree) -> None:
    assert GuardContext(tree.root, ssh_connection="UNKNOWN 65535 UNKNOWN 65535").management_addresses == {}
