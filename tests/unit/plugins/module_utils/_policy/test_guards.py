# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guards: whatever the host lives on is found through every layer that may hide it."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import namespaces, netlink, sockets
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.mounts import Mount
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.namespaces import Elsewhere
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import Address, Link, NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.packet_sockets import PacketSocket
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guards import check
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC, guards, kinds
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def route(index: int, family: str = "inet", table: str = "main", destination: str = "default") -> NetState:
    return NetState([], [Route(family, table, destination, "192.0.2.1", (index,), False)])


# --- network ---


def test_an_idle_interface_is_free(nic: Tree) -> None:
    kernel_made = Route("inet6", "local", "ff00::/8", None, (2,), True)
    assert guards(nic, NIC, NetState([Address(2, "fe80::1", 64)], [kernel_made])) == []


@pytest.mark.parametrize("family,table", [("inet", "main"), ("inet6", "main"), ("inet", "1234"), ("mpls", "main")])
def test_a_route_of_any_family_in_any_table_counts(nic: Tree, family: str, table: str) -> None:
    found = guards(nic, NIC, route(nic.root.read_int("/sys/class/net/eth1/ifindex"), family, table))
    assert kinds(found) == ["route"]
    assert found[0].evidence == ["%s route default via 192.0.2.1 in table %s dev eth1" % (family, table)]
    assert found[0].remedy


@pytest.mark.parametrize("program,shown", [(42, "42"), (0, "of several modes")])
def test_an_interface_with_an_xdp_program_is_refused(nic: Tree, program: int, shown: str) -> None:
    index = nic.root.read_int("/sys/class/net/eth1/ifindex")
    links = [
        Link("eth1", None, None, False, ifindex=index, xdp=program),
        Link("eth2", None, None, False, ifindex=99, xdp=7),
    ]
    found = guards(nic, NIC, NetState([], [], links))
    assert kinds(found) == ["xdp"] and found[0].evidence == ["eth1: XDP program %s is attached" % shown]


@pytest.mark.parametrize(
    "kind,elsewhere,guarded", [("ip6gretap", False, True), ("veth", False, False), ("sit", True, False)]
)
def test_a_tunnel_that_only_the_kernels_list_ties_to_its_interface_counts(
    nic: Tree, kind: str, elsewhere: bool, guarded: bool
) -> None:
    index, above = nic.root.read_int("/sys/class/net/eth1/ifindex"), nic.net("t0")
    links = [Link("eth1", None, None, False, ifindex=index), Link("t0", kind, index, elsewhere, ifindex=above)]
    found = guards(nic, NIC, NetState([Address(above, "192.0.2.7", 24)], [], links))
    assert [guard.evidence for guard in found] == ([["address 192.0.2.7/24 on t0 on eth1"]] if guarded else [])


@pytest.mark.parametrize("above", ["vlan100", "bond0", "br0", "team0", "macvlan0"])
def test_a_route_above_counts(nic: Tree, above: str) -> None:
    index = nic.net(above)
    nic.stack(above, "eth1", master=above in ("bond0", "br0", "team0"))
    found = guards(nic, NIC, route(index))
    assert kinds(found) == ["route"]
    assert "dev %s on eth1" % above in found[0].evidence[0]


def test_a_route_three_layers_above_counts(nic: Tree) -> None:
    nic.net("bond0")
    nic.net("bond0.7")
    index = nic.net("br7")
    nic.stack("bond0", "eth1", master=True)
    nic.stack("bond0.7", "bond0")
    nic.stack("br7", "bond0.7", master=True)
    assert "dev br7 on bond0.7 on bond0 on eth1" in guards(nic, NIC, route(index))[0].evidence[0]


def test_master_alone_is_followed(nic: Tree) -> None:
    index = nic.net("vrf0")
    nic.link(nic.root.realpath("/sys/class/net/eth1") + "/master", nic.root.realpath("/sys/class/net/vrf0"))
    assert kinds(guards(nic, NIC, route(index))) == ["route"]


def test_the_other_member_of_a_bond_is_not_above(nic: Tree) -> None:
    nic.pci("0000:00:05.0", driver="e1000e")
    other = nic.net("eth2", "0000:00:05.0")
    nic.net("bond0")
    nic.stack("bond0", "eth1", "eth2", master=True)
    assert kinds(guards(nic, NIC, route(other))) == ["stacked"]


def test_virtual_functions_go_with_their_physical_one(nic: Tree) -> None:
    nic.pci("0000:00:04.2", "8086:10ca", driver="igbvf")
    index = nic.net("eth9", "0000:00:04.2")
    nic.link(nic.real(NIC) + "/virtfn0", nic.real("0000:00:04.2"))
    nic.link(nic.real("0000:00:04.2") + "/physfn", nic.real(NIC))
    assert "virtual function 0000:00:04.2, eth9" in guards(nic, NIC, route(index))[0].evidence[0]
    # Taking a virtual function leaves the physical one alone.
    assert guards(nic, "0000:00:04.2", route(nic.root.read_int("/sys/class/net/eth1/ifindex"))) == []


def test_virtio_interfaces_below_a_child_device_count(tree: Tree) -> None:
    tree.pci(NIC, "1af4:1041", driver="virtio-pci")
    index = tree.net("eth0", NIC, child="virtio0")
    assert kinds(guards(tree, NIC, route(index))) == ["route"]


def test_an_open_vswitch_port_is_refused(nic: Tree) -> None:
    nic.net("ovs-system")
    nic.stack("ovs-system", "eth1", master=True)
    found = guards(nic, NIC)
    assert kinds(found) == ["openvswitch"] and "ovs-vsctl del-port" in found[0].remedy


# "not tcp dst port 22 and ether proto 0x88cc", as lldpd and the like have it: all but LLDP is rejected.
ONLY_LLDP = struct.pack("=HBBIHBBIHBBIHBBI", 0x28, 0, 0, 12, 0x15, 0, 1, 0x88CC, 0x6, 0, 0, 262144, 0x6, 0, 0, 0)
# Open vSwitch's: all but what this host sends.
INCOMING = struct.pack("=HBBIHBBIHBBIHBBI", 0x28, 0, 0, 0xFFFFF004, 0x15, 0, 1, 4, 0x6, 0, 0, 0, 0x6, 0, 0, 65535)


@pytest.mark.parametrize(
    "owner,protocol,code,guarded",
    [
        ("ovs-vswitchd", 3, INCOMING, True),
        ("vpp_main", 3, None, True),
        ("suricata", 0x0800, None, True),
        ("lldpd", 3, ONLY_LLDP, False),
        ("ptp4l", 0x88F7, None, False),
    ],
)
@pytest.mark.parametrize("above", [None, "bond0"])
def test_a_packet_socket_that_receives_ordinary_packets_is_refused_whoever_has_it(
    nic: Tree, owner: str, protocol: int, code: bytes | None, guarded: bool, above: str | None
) -> None:
    index = nic.root.read_int("/sys/class/net/eth1/ifindex")
    if above:
        index = nic.net(above)
        nic.stack(above, "eth1", master=True)
    nic.file("/proc/812/comm", owner)
    nic.dir("/proc/812/fd")
    for fd, target in enumerate(("/dev/null", "pipe:[8002]", "socket:[8002]", "socket:[8003]")):
        nic.at("/proc/812/fd/%d" % fd).symlink_to(target)
    context, bus = GuardContext(nic.root, NetState([], [])), PciBus(nic.root)
    present = [PacketSocket(index, "8002", protocol, code), PacketSocket(index + 100, "8001", 3, None)]
    context._packet_sockets = lambda: present
    found = check(context, bus, bus.get(NIC))
    assert kinds(found) == (["packet_socket"] if guarded else ["stacked"] if above else [])
    chain = "bond0 on eth1" if above else "eth1"
    assert not guarded or found[0].evidence == ["%s: packet socket of process 812 (%s)" % (chain, owner)]


@pytest.mark.parametrize(
    "above,master,command",
    [
        ("br0", True, "ip link set eth1 nomaster"),
        ("bond0", True, "ip link set eth1 nomaster"),
        ("vlan7", False, "ip link delete vlan7"),
        ("macvtap0", False, "ip link delete macvtap0"),
    ],
)
def test_what_has_something_on_top_is_refused_without_any_address(
    nic: Tree, above: str, master: bool, command: str
) -> None:
    nic.net(above)
    nic.stack(above, "eth1", master=master)
    found = guards(nic, NIC)
    assert kinds(found) == ["stacked"] and found[0].evidence == ["%s on eth1" % above]
    assert "(%s)" % command in found[0].remedy


def test_only_the_lowest_layer_has_to_go(nic: Tree) -> None:
    for name in ("bond0", "bond0.7", "vlan9"):
        nic.net(name)
    nic.stack("bond0", "eth1", master=True)
    nic.stack("bond0.7", "bond0")
    nic.stack("vlan9", "eth1")
    found = guards(nic, NIC)
    assert sorted(found[0].evidence) == ["bond0 on eth1", "bond0.7 on bond0 on eth1", "vlan9 on eth1"]
    assert "(ip link set eth1 nomaster; ip link delete vlan9)" in found[0].remedy


def test_what_is_on_top_of_a_virtual_function_counts_for_the_physical_one(nic: Tree) -> None:
    nic.pci("0000:00:04.2", "8086:10ca", driver="igbvf")
    nic.net("eth9", "0000:00:04.2")
    nic.link(nic.real(NIC) + "/virtfn0", nic.real("0000:00:04.2"))
    assert guards(nic, NIC) == []
    nic.net("vlan7")
    nic.stack("vlan7", "eth9")
    assert guards(nic, NIC)[0].evidence == ["vlan7 on virtual function 0000:00:04.2, eth9"]


@pytest.mark.parametrize("through", ["eth1", "eth1.7"])
def test_a_pppoe_session_counts(nic: Tree, through: str) -> None:
    nic.net("eth1.7")
    nic.stack("eth1.7", "eth1")
    nic.file("/proc/net/pppoe", "Id       Address              Device\n00001A2B 00:11:22:33:44:55 %8s" % through)
    found = guards(nic, NIC)
    assert "pppoe" in kinds(found)
    assert found[-1].evidence[0].startswith("/proc/net/pppoe: session with 00:11:22:33:44:55 through " + through)
    nic.file("/proc/net/pppoe", "Id       Address              Device\n00001A2B 00:11:22:33:44:55     eth2")
    assert kinds(guards(nic, NIC)) == ["stacked"]


def test_an_interface_in_another_namespace_is_refused(nic: Tree) -> None:
    nic.remove("/sys/class/net/eth1")
    nic.remove(nic.real(NIC) + "/net/eth1")
    found = guards(nic, NIC)
    assert kinds(found) == ["namespace"] and "driver e1000e" in found[0].evidence[0]


@pytest.mark.parametrize("bus,name,below", [("pci", NIC, ""), ("virtio", "virtio0", "/virtio0")])
def test_one_of_several_interfaces_in_another_namespace_is_refused(nic: Tree, bus: str, name: str, below: str) -> None:
    """As an mlx4 has them; eth1 is here. Nothing in sysfs tells."""
    nic.dir(nic.real(NIC) + below)
    if bus != "pci":
        nic.link("/sys/bus/%s/devices/%s" % (bus, name), nic.real(NIC) + below)
    links = [Link("eth0", None, None, False, bus, name), Link("lo", None, None, False)]
    context, pci = GuardContext(nic.root, NetState([], [])), PciBus(nic.root)
    context.__dict__["elsewhere"] = Elsewhere({}, namespaces.of_devices(nic.root, links, "the namespace of process 7"))
    found = check(context, pci, pci.get(NIC))
    assert kinds(found) == ["namespace"] and found[0].evidence == ["eth0 is in the namespace of process 7"]
    nic.bind(NIC, "vfio-pci")
    assert check(context, pci, pci.get(NIC)) == []


def test_an_interface_plugged_into_a_usb_controller_may_be_in_another_namespace(tree: Tree) -> None:
    tree.pci(NIC, "8086:a36d", "0c0330", driver="xhci_hcd")
    interface = tree.real(NIC) + "/usb1/1-2/1-2:1.0"
    tree.dir(interface + "/net")
    tree.link("/sys/bus/usb/devices/1-2:1.0", interface)
    context, bus = GuardContext(tree.root, NetState([], [])), PciBus(tree.root)
    links = [Link("enx0", None, None, False, "usb", "1-2:1.0")]
    context.__dict__["elsewhere"] = Elsewhere({}, namespaces.of_devices(tree.root, links, "the network namespace x"))
    assert check(context, bus, bus.get(NIC))[0].evidence == ["enx0 is in the network namespace x"]


def test_a_virtual_function_in_another_namespace_counts_for_the_physical_one(nic: Tree) -> None:
    nic.sriov(NIC, number=1)
    function = nic.vf_address(NIC, 0)
    nic.bind(function, "igbvf")
    context, bus = GuardContext(nic.root, NetState([], [])), PciBus(nic.root)
    context.__dict__["elsewhere"] = Elsewhere({}, [(nic.real(function), "net1 is in the namespace of process 7")])
    assert check(context, bus, bus.get(NIC))[0].evidence == [
        "virtual function %s, net1 is in the namespace of process 7" % function
    ]


def test_of_a_device_without_an_interface_the_network_is_not_read(tree: Tree) -> None:
    tree.pci(NIC, driver="vfio-pci")
    context, bus = GuardContext(tree.root), PciBus(tree.root)
    assert check(context, bus, bus.get(NIC)) == [] and not {"net", "elsewhere"} & set(context.__dict__)


def test_a_driver_without_an_interface_is_not_another_namespace(tree: Tree) -> None:
    tree.pci(NIC, driver="e1000e")
    tree.pci("0000:00:05.0", driver="vfio-pci")
    assert guards(tree, NIC) == [] and guards(tree, "0000:00:05.0") == []


def test_a_bridge_is_refused_by_header_type_and_by_class(tree: Tree) -> None:
    tree.pci("0000:00:1c.0", class_code="020000", header_type=1)
    tree.pci("0000:00:00.0", class_code="060000")
    assert kinds(guards(tree, "0000:00:1c.0")) == ["not_endpoint"]
    assert kinds(guards(tree, "0000:00:00.0")) == ["not_endpoint"]


def test_a_usb_controller_carries_what_is_plugged_into_it(tree: Tree) -> None:
    tree.pci(NIC, "8086:7ae0", "0c0330", driver="xhci_hcd")
    index = tree.net("enx0", NIC, child="usb1/1-2/1-2:1.0")
    assert guards(tree, NIC) == []
    tree.block("sdc", tree.real(NIC) + "/usb2/2-1/2-1:1.0/host4/target4:0:0/4:0:0:0/block", "8:32")
    tree.mounts(("8:32", "/media", "/dev/sdc"))
    assert kinds(guards(tree, NIC, route(index))) == ["route", "mount"]


# --- the management connection ---


# As a little-endian machine prints them: 10.0.0.5 is 0500000A.
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0500000A:0016 0200000A:C350 01 00000000:00000000 02:00000000 00000000     0        0 2 2 0 20 4 30 10 -1
   2: 0600000A:9C40 0200000A:01BB 01 00000000:00000000 02:00000000 00000000     0        0 3 2 0 20 4 30 10 -1
   3: 0700000A:0016 0200000A:C350 06 00000000:00000000 03:00000EA2 00000000     0        0 0 3 0"""
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


def test_every_guard_is_listed(nic: Tree) -> None:
    index = nic.root.read_int("/sys/class/net/eth1/ifindex")
    net = NetState([Address(index, "10.0.0.5", 24)], route(index).routes)
    nic.file("/proc/net/tcp", TCP)
    disk = nic.block("sda", nic.real(NIC) + "/host0", "8:0")
    nic.block("sda1", disk, "8:1")
    nic.mounts(("8:1", "/", "/dev/root"))
    assert kinds(guards(nic, NIC, net)) == ["management", "route", "mount"]


def test_many_routes_are_counted_not_all_shown(nic: Tree) -> None:
    index = nic.root.read_int("/sys/class/net/eth1/ifindex")
    routes = [Route("inet", "main", "10.%d.0.0/16" % n, None, (index,), False) for n in range(40)]
    found = guards(nic, NIC, NetState([], routes))[0]
    assert "40 of the host's routes" in found.message and found.evidence[-1] == "and 35 more"


# --- addresses without routes, and containers ---


def test_an_address_on_an_interface_that_is_down_counts(nic: Tree) -> None:
    index = nic.net("vlan7")
    nic.stack("vlan7", "eth1")
    found = guards(nic, NIC, NetState([Address(index, "192.0.2.5", 24), Address(index, "fe80::1", 64)], []))
    assert kinds(found) == ["address"] and found[0].evidence == ["address 192.0.2.5/24 on vlan7 on eth1"]


def test_what_containers_have_on_top_of_an_interface_counts(nic: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    index = nic.root.read_int("/sys/class/net/eth1/ifindex")
    context = GuardContext(nic.root, NetState([], []))
    context.__dict__["elsewhere"] = Elsewhere({index: ["macvlan eth0 in the namespace of process 7 (pause)"]}, [])
    bus = PciBus(nic.root)
    found = check(context, bus, bus.get(NIC))
    assert kinds(found) == ["namespace"]
    assert found[0].evidence == ["macvlan eth0 in the namespace of process 7 (pause) on eth1"]


def test_only_what_is_on_top_of_another_namespaces_interface_counts() -> None:
    links = [
        Link("lo", None, None, False),
        Link("eth0", "macvlan", 2, True),
        Link("eth1", "veth", 3, True),
        Link("eth0.7", "vlan", 2, False),
        Link("ip0", "ipvlan", 2, True),
        Link("sec0", "macsec", 4, True),
        Link("sec1", "macsec", 4, False),
        Link("ib0", "ipoib", None, False),
        Link("ib0.8001", "ipoib", 5, False),
    ]
    assert namespaces.on_top(links, "c1") == {
        2: ["macvlan eth0 in c1", "ipvlan ip0 in c1"],
        4: ["macsec sec0 in c1"],
        5: ["ipoib ib0.8001 in c1"],
    }


def test_the_running_kernel_says_which_device_an_interface_belongs_to() -> None:
    root = Root("/")
    expected = {
        name: root.realpath("/sys/class/net", name, "device")
        for name in root.listdir("/sys/class/net")
        if root.exists("/sys/class/net", name, "device")
    }
    found = {what.split()[0]: path for path, what in namespaces.of_devices(root, netlink.read_links(), "ours")}
    assert found == expected


def in_namespaces(tree: Tree, **numbers: int) -> None:
    for pid, number in numbers.items():
        tree.dir("/proc/%s/ns" % pid.strip("p"))
        tree.at("/proc/%s/ns/net" % pid.strip("p")).symlink_to("net:[%d]" % number)


def test_each_other_namespace_is_looked_at_once(tree: Tree) -> None:
    in_namespaces(tree, self=1, p1=1, p20=2, p21=2, p30=3)
    tree.dir("/proc/40/ns")
    assert namespaces.namespaces(tree.root) == {
        "net:[2]": ["/proc/20/ns/net", "/proc/21/ns/net"],
        "net:[3]": ["/proc/30/ns/net"],
    }


def test_namespaces_without_a_process_are_found_by_their_mounts(tree: Tree) -> None:
    in_namespaces(tree, self=1, p1=1, p20=2)
    tree.file(
        "/proc/1/mountinfo",
        "\n".join(
            "22 1 0:4 %s %s rw shared:1 - nsfs nsfs rw" % mount
            for mount in (
                ("net:[1]", "/run/netns/host"),
                ("net:[2]", "/run/docker/netns/2"),
                ("net:[3]", "/run/netns/my\\040own"),
                ("mnt:[4]", "/run/snapd/ns/x.mnt"),
            )
        ),
    )
    found = namespaces.namespaces(tree.root)
    assert found == {"net:[2]": ["/proc/20/ns/net", "/run/docker/netns/2"], "net:[3]": ["/run/netns/my own"]}
    assert namespaces._where(tree.root, "/run/netns/my own") == "the network namespace /run/netns/my own"


def test_a_namespace_that_a_thread_a_descriptor_or_another_mount_namespace_keeps_is_found(tree: Tree) -> None:
    in_namespaces(tree, self=1, p1=1, p20=1)
    for link, target in (
        ("/proc/1/ns/mnt", "mnt:[1]"),
        ("/proc/20/ns/mnt", "mnt:[2]"),
        ("/proc/20/task/20/ns/net", "net:[1]"),
        ("/proc/20/task/21/ns/net", "net:[2]"),
        ("/proc/20/fd/4", "net:[3]"),
        ("/proc/20/fd/5", "mnt:[4]"),
        ("/proc/20/fd/6", "/run/netns/x"),
    ):
        tree.at(link).parent.mkdir(parents=True, exist_ok=True)
        tree.at(link).symlink_to(target)
    tree.file("/proc/20/mountinfo", "22 1 0:4 net:[5] /run/docker/netns/5 rw shared:1 - nsfs nsfs rw")
    tree.file("/proc/20/comm", "snap")
    found = namespaces.namespaces(tree.root)
    assert found == {
        "net:[2]": ["/proc/20/task/21/ns/net"],
        "net:[3]": ["/proc/20/fd/4"],
        "net:[5]": ["/proc/20/root/run/docker/netns/5"],
    }
    assert [namespaces._where(tree.root, paths[0]) for paths in found.values()] == [
        "the namespace of process 20 (snap)",
        "the namespace that process 20 (snap) keeps",
        "the namespace that process 20 (snap) keeps",
    ]


@pytest.mark.parametrize("is_ending", [True, False])
def test_of_a_process_that_is_ending_another_one_shows_the_mounts(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, is_ending: bool
) -> None:
    in_namespaces(tree, self=1, p1=1, p20=1, p21=1)
    for pid, number in ((1, 1), (20, 2), (21, 2)):
        tree.at("/proc/%d/ns/mnt" % pid).symlink_to("mnt:[%d]" % number)
    tree.file("/proc/21/mountinfo", "22 1 0:4 net:[5] /run/docker/netns/5 rw shared:1 - nsfs nsfs rw")
    read = namespaces.read_mounts

    def reading(root: Root, table: str) -> list[Mount]:
        if table != "/proc/20/mountinfo":
            return read(root, table)
        if is_ending:
            tree.at("/proc/20/ns/mnt").unlink()
        raise HostError("unreadable", "EINVAL")

    monkeypatch.setattr(namespaces, "read_mounts", reading)
    if is_ending:
        assert namespaces.namespaces(tree.root) == {"net:[5]": ["/proc/21/root/run/docker/netns/5"]}
    else:
        with pytest.raises(HostError, match="EINVAL"):
            namespaces.namespaces(tree.root)


@pytest.fixture
def there(tree: Tree) -> tuple[str, str]:
    """Something that can be opened as a namespace, and the name that it has as one."""
    tree.file("/there")
    path = tree.root.path("/there")
    return "net:[%d]" % os.stat(path).st_ino, path


def test_a_namespace_is_entered_by_whatever_is_left_of_it(
    there: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = []
    monkeypatch.setattr(namespaces, "_setns", entered.append)
    monkeypatch.setattr(namespaces, "read_links", lambda: [Link("eth0", "macvlan", 2, True)])
    name, path = there
    assert namespaces._links_in(name, [path + "-gone", path], "c1") and len(entered) == 1
    assert namespaces._links_in(name, [path + "-gone"], "c1") == [] and len(entered) == 1


def test_a_namespace_that_cannot_be_entered_is_not_an_empty_one(
    there: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(namespaces, "_setns", refuse)
    name, path = there
    with pytest.raises(HostError) as caught:
        namespaces._links_in(name, [path], "the namespace of process 7 (pause)")
    assert "process 7 (pause)" in caught.value.message and "Operation not permitted" in caught.value.message
    assert caught.value.evidence and "become: true" in caught.value.remedy
    with pytest.raises(HostError, match="something else is at"):
        namespaces._links_in("net:[1]", [path], "the network namespace /run/netns/blue")


def test_the_running_kernel_is_asked_without_a_failure() -> None:
    found = namespaces.look_elsewhere(Root("/"))
    assert all(isinstance(lines, list) for lines in found.on_top.values())
    assert all(path.startswith("/sys/") for path, _what in found.devices)
    assert "lo" in [link.name for link in netlink.read_links()]
    namespaces.ensure_ours(Root("/"))


# --- sysfs and sockets of different network namespaces ---


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(namespaces.time, "sleep", found.append)
    return found


def test_sysfs_of_the_own_namespace_costs_no_waiting(nic: Tree, pauses: list[float]) -> None:
    nic.file("/sys/class/net/bonding_masters")
    namespaces.ensure_ours(nic.root, lambda: [(2, "eth1")])
    assert pauses == []


@pytest.mark.parametrize("seen", [[(1, "lo")], [(3, "eth1")], [(2, "eth1"), (3, "eth2")], []])
def test_sysfs_of_another_namespace_is_an_error(nic: Tree, pauses: list[float], seen: list[tuple[int, str]]) -> None:
    with pytest.raises(HostError) as caught:
        namespaces.ensure_ours(nic.root, lambda: seen)
    assert 0.5 < sum(pauses) < 2 and caught.value.evidence and "container" in caught.value.remedy


def test_both_sides_of_the_difference_are_shown(nic: Tree, pauses: list[float]) -> None:
    with pytest.raises(HostError) as caught:
        namespaces.ensure_ours(nic.root, lambda: [(1, "lo")])
    assert caught.value.evidence == [
        "/sys/class/net has, and the process has not: eth1 (index 2)",
        "the process has, and /sys/class/net has not: lo (index 1)",
    ]


def test_renames_and_containers_that_come_and_go_are_no_other_namespace(nic: Tree, pauses: list[float]) -> None:
    """Each look differs, but never twice in the same way."""
    answers = iter([[(2, "eth0")], [(2, "eth1"), (9, "veth9")], [(2, "eth1"), (10, "veth10")]])
    namespaces.ensure_ours(nic.root, lambda: next(answers))
    assert len(pauses) == 1


def test_the_running_host_is_asked_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(namespaces, "ensure_ours", asked.append)
    monkeypatch.setattr(NetState, "read", lambda: NetState([], []))
    context = GuardContext(Root("/"))
    assert context.net == context.net == NetState([], []) and len(asked) == 1
