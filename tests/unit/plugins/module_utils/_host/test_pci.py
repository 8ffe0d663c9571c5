# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices and selectors."""

from __future__ import annotations

import re

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.recorded import Recorded
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.selectors import resolve
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import pci
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus, nearest_bdf, normalise_bdf
from ansible_collections.baremetal.noiommu.tests.unit.support.selecting import select
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

A, B, C = "0000:04:00.0", "0000:05:00.0", "0000:06:00.0"


@pytest.fixture
def host(tree: Tree) -> Tree:
    tree.pci("0000:00:1c.0", "8086:7a3c", "060400", driver="pcieport", header_type=1)
    bridge = tree.real("0000:00:1c.0")
    tree.pci(A, driver="e1000e", below=bridge, numa_node=1)
    tree.net("eth1", A, "52:54:00:00:00:11", up=True)
    tree.pci(B, driver="e1000e")
    tree.net("eth2", B, "52:54:00:00:00:12")
    tree.pci(C, "1af4:1041", driver="virtio-pci")
    tree.net("eth3", C, "52:54:00:00:00:13", child="virtio1")
    return tree


@pytest.mark.parametrize(
    "text,full", [("04:00.0", A), (" 0000:04:00.0 ", A), ("0000:AF:1F.7", "0000:af:1f.7"), ("10000:01:00.0",) * 2]
)
def test_addresses_are_normalised(text: str, full: str) -> None:
    assert normalise_bdf(text) == full


@pytest.mark.parametrize("text", ["", "4:0.0", "0000:04:00", "0000:04:00.8", "0000:04:20.0", "0000:04:00.0/../x", "4"])
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(HostError, match="not a PCI address") as caught:
        normalise_bdf(text)
    assert caught.value.code == "selector" and caught.value.remedy


def test_attributes(host: Tree) -> None:
    bus = PciBus(host.root)
    device = bus.get(A)
    assert (device.vendor_device, device.class_code, device.driver, device.numa_node) == (
        "8086:10d3",
        "020000",
        "e1000e",
        1,
    )
    assert device.driver_override is None and device.iommu_group is None and device.is_endpoint and device.is_network
    assert [(interface.name, interface.mac, interface.up) for interface in device.interfaces] == [
        ("eth1", "52:54:00:00:00:11", True)
    ]
    assert bus.get(B).numa_node is None
    # The bridge above owns nothing of what is below it.
    assert bus.get("0000:00:1c.0").interfaces == [] and not bus.get("0000:00:1c.0").is_endpoint
    assert bus.get(C).mac == "52:54:00:00:00:13"


def test_the_hint_for_dpdk_is_no_iommu(host: Tree) -> None:
    device = PciBus(host.root).get(A)
    host.link(device.path + "/iommu", "/sys/class/iommu/dmar0")
    assert device.iommu == "dmar0"
    host.link(device.path + "/iommu", "/sys/module/noiommu/no_iommu")
    assert device.iommu is None


def test_the_driver_is_read_anew(host: Tree) -> None:
    device = PciBus(host.root).get(A)
    host.remove(host.real(A) + "/driver")
    host.file(host.real(A) + "/driver_override", "vfio-pci")
    assert device.driver is None and device.driver_override == "vfio-pci"


def test_a_bond_members_own_address_counts(host: Tree) -> None:
    host.file(host.root.realpath("/sys/class/net/eth2") + "/bonding_slave/perm_hwaddr", "52:54:00:00:00:99")
    assert PciBus(host.root).get(B).mac == "52:54:00:00:00:99"


@pytest.mark.parametrize(
    "assigned, asked, permanent",
    [
        (None, None, "52:54:00:00:00:12"),
        ("0", None, "52:54:00:00:00:12"),
        ("1", None, None),
        ("3", None, None),
        ("3", "02:00:00:00:00:33", "02:00:00:00:00:33"),
    ],
)
def test_an_address_lasts_only_if_it_is_the_cards_own(
    host: Tree, monkeypatch: pytest.MonkeyPatch, assigned: str | None, asked: str | None, permanent: str | None
) -> None:
    monkeypatch.setattr(pci, "_permanent_address", lambda root, name: asked)
    if assigned:
        host.file("/sys/class/net/eth2/addr_assign_type", assigned)
    link = PciBus(host.root).get(B).interfaces[0]
    assert (link.mac, link.permanent) == ("52:54:00:00:00:12", permanent)
    if permanent:
        assert select(host, {"mac": permanent}) == [B]
    assert select(host, {"mac": "52:54:00:00:00:12"}) == [B]


def test_of_an_infiniband_address_only_the_ports_guid_lasts(host: Tree) -> None:
    """The first four bytes have the queue pair's number, and the subnet manager gives the next eight."""
    address = "80:00:02:08:fe:80:00:00:00:00:00:00:b8:ce:f6:03:00:a1:b2:c3"
    host.file("/sys/class/net/eth2/address", address)
    link = PciBus(host.root).get(B).interfaces[0]
    assert (link.mac, link.permanent) == (address, "b8:ce:f6:03:00:a1:b2:c3")


def test_the_owner_of_an_address_is_meant_and_not_who_was_given_it(host: Tree) -> None:
    host.file("/sys/class/net/eth2/addr_assign_type", "3")
    host.file("/sys/class/net/eth2/address", "52:54:00:00:00:11")
    assert select(host, {"mac": "52:54:00:00:00:11"}) == [A]


def test_the_running_kernel_is_asked_for_an_address_that_lasts() -> None:
    for name in [*Root().listdir("/sys/class/net"), "none"]:
        found = pci._permanent_address(Root(), name)  # pylint: disable=protected-access
        assert found is None or re.match(r"^([0-9a-f]{2}:)+[0-9a-f]{2}$", found)


def test_virtual_functions(host: Tree) -> None:
    for number in range(2):
        host.pci("0000:04:10.%d" % number)
        host.link("%s/virtfn%d" % (host.real(A), number), host.real("0000:04:10.%d" % number))
    host.link(host.real("0000:04:10.0") + "/physfn", host.real(A))
    bus = PciBus(host.root)
    assert bus.get(A).virtfns == ["0000:04:10.0", "0000:04:10.1"] and bus.get(A).physfn is None
    assert bus.get("0000:04:10.0").physfn == A


def test_nearest_bdf() -> None:
    assert nearest_bdf("/sys/devices/pci0000:00/0000:00:1c.0/0000:04:00.0/virtio1/net/eth0") == A
    assert nearest_bdf("/sys/devices/virtual/net/lo") is None
    assert nearest_bdf("/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/net/enx0") is None
    assert nearest_bdf("/sys/devices/pci0000:00/0000:04:00.0/net/usb0") == A
    # A PCI device behind Thunderbolt, whose name has nothing to do with a bus of USB.
    assert nearest_bdf("/sys/devices/pci0000:00/0000:00:14.0/usb4_port1/0000:04:00.0/net/eth0") == A


# --- selectors ---


def test_each_kind_selects(host: Tree) -> None:
    assert select(host, {"address": "04:00.0"}) == [A]
    assert select(host, {"vendor_device": "8086:10D3"}) == [A, B]
    assert select(host, {"interface": "eth3"}) == [C]
    assert select(host, {"mac": "52-54-00-00-00-12"}) == [B]


def test_empty_keys_of_an_argument_spec_are_no_selectors(host: Tree) -> None:
    assert select(host, {"address": A, "mac": None, "interface": None, "vendor_device": None}) == [A]


@pytest.mark.parametrize("entry", [{}, {"address": A, "mac": "52:54:00:00:00:11"}])
def test_an_entry_needs_exactly_one_selector(host: Tree, entry: dict) -> None:
    with pytest.raises(HostError, match="exactly one"):
        select(host, entry)


@pytest.mark.parametrize(
    "entry",
    [{"address": "0000:77:00.0"}, {"vendor_device": "1234:5678"}, {"interface": "eth7"}, {"mac": "02:00:00:00:00:01"}],
)
def test_no_match_shows_what_there_is(host: Tree, entry: dict) -> None:
    with pytest.raises(HostError, match="No PCI device on this host") as caught:
        select(host, entry)
    shown = "\n".join(caught.value.evidence)
    assert "0000:04:00.0 8086:10d3 eth1 52:54:00:00:00:11 driver e1000e" in shown
    assert "0000:00:1c.0" not in shown


@pytest.mark.parametrize("entry", [{"vendor_device": "8086"}, {"mac": "52:54:00:00:00"}, {"address": "x"}])
def test_malformed_selectors(host: Tree, entry: dict) -> None:
    with pytest.raises(HostError, match="is not a"):
        select(host, entry)


def test_a_duplicate_names_both_selectors(host: Tree) -> None:
    with pytest.raises(HostError, match="%s is selected twice" % A) as caught:
        select(host, {"vendor_device": "8086:10d3"}, {"interface": "eth1"})
    assert caught.value.evidence == ["by vendor_device: 8086:10d3", "by interface: eth1"]


def test_every_bad_entry_is_reported(host: Tree) -> None:
    errors = resolve([{"address": "x"}, {"mac": "y"}, {}], PciBus(host.root), [])[1]
    assert len(errors) == 3


def test_a_virtual_interface_is_explained(host: Tree) -> None:
    host.net("bond0")
    host.stack("bond0", "eth1", "eth2", master=True)
    with pytest.raises(HostError, match="bond0 is not an interface of a PCI device") as caught:
        select(host, {"interface": "bond0"})
    assert "below it: eth1" in caught.value.evidence


@pytest.mark.parametrize("selector", [{"interface": "usb0"}, {"mac": "52:54:00:00:00:77"}])
def test_a_usb_interface_does_not_mean_its_whole_host_controller(host: Tree, selector: dict[str, str]) -> None:
    host.pci("0000:00:14.0", "8086:7ae0", "0c0330", driver="xhci_hcd")
    host.net("usb0", "0000:00:14.0", "52:54:00:00:00:77", child="usb1/1-2/1-2:1.0")
    with pytest.raises(HostError, match="usb0 is not an interface of a PCI device, but of a USB one") as caught:
        select(host, selector)
    assert "1-2:1.0/net/usb0" in caught.value.evidence[0] and "controller" in caught.value.remedy
    assert PciBus(host.root).get("0000:00:14.0").interfaces == []
    assert select(host, {"address": "0000:00:14.0"}) == ["0000:00:14.0"]


def test_a_mac_that_two_devices_have_is_ambiguous(host: Tree) -> None:
    host.file(host.root.realpath("/sys/class/net/eth2/address"), "52:54:00:00:00:11")
    with pytest.raises(HostError, match="means 2 devices"):
        select(host, {"mac": "52:54:00:00:00:11"})


def taken(tree: Tree) -> Recorded:
    """Take A's interface away, as VFIO does."""
    tree.remove("/sys/class/net/eth1")
    tree.remove(tree.real(A) + "/net")
    tree.bind(A, "vfio-pci")
    return Recorded(A, "8086:10d3", ["eth1"], ["52:54:00:00:00:11"])


def test_a_taken_device_stays_selected(host: Tree) -> None:
    record = taken(host)
    assert select(host, {"interface": "eth1"}, recorded=(record,)) == [A]
    assert select(host, {"mac": "52:54:00:00:00:11"}, recorded=(record,)) == [A]


def test_a_name_that_moved_on_to_another_device_is_ambiguous(host: Tree) -> None:
    record = taken(host)
    host.net("eth1", B, "52:54:00:00:00:77")
    with pytest.raises(HostError, match="interface eth1 means 2 devices") as caught:
        select(host, {"interface": "eth1"}, recorded=(record,))
    assert "by address" in caught.value.remedy


def test_a_device_that_was_given_back_is_known_by_its_present_interfaces(host: Tree) -> None:
    record = Recorded(A, "8086:10d3", ["eth2"], [])
    assert select(host, {"interface": "eth2"}, recorded=(record,)) == [B]


@pytest.mark.parametrize("entry", [{"address": A}, {"interface": "eth1"}, {"mac": "52:54:00:00:00:11"}])
def test_a_taken_device_that_disappeared_is_told(host: Tree, entry: dict) -> None:
    record = taken(host)
    host.remove("/sys/bus/pci/devices/" + A)
    with pytest.raises(HostError, match="disappeared") as caught:
        select(host, entry, recorded=(record,))
    assert A in caught.value.evidence[0]


def test_another_device_in_the_slot_is_not_the_recorded_one(host: Tree) -> None:
    record = taken(host)._replace(vendor_device="15b3:1017")
    with pytest.raises(HostError, match="disappeared"):
        select(host, {"interface": "eth1"}, recorded=(record,))
