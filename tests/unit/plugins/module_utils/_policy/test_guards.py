# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guards: whatever the host lives on is found through every layer that may hide it."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import namespaces
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.namespaces import Elsewhere
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import Address, Link, NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.packet_sockets import PacketSocket
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guards import check
from ansible_collections.baremetal.noiommu.tests.unit.support.connections import (
    TCP,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC, guards, kinds
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def route(index: int, family: str = "inet", table: str = "main", destination: str = "default") -> NetState:
    return NetState([], [Route(family, table, destination, "192.0.2.1", (index,), False)])


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
