# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that VFIO is wrong for, and others who act on the declared ones."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.iommu import group_refusals
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.network_config import Identity, mentions
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy import others, vfio_ids
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.unsuitable import unsuitable
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.predict import Situation, applications
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import binding
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

MAC = "52:54:00:00:00:01"


def codes(tree: Tree, driver: str = "vfio-pci") -> list[str]:
    return [refusal.code for refusal in unsuitable(tree.root, PciBus(tree.root).get(NIC), driver)]


@pytest.mark.parametrize(
    "ids,kind,driver,needed",
    [
        ("15b3:1017", "020000", "mlx5_core", True),
        ("15b3:1007", "020000", "mlx4_core", True),
        ("15b3:1013", "020700", "mlx5_core", True),
        ("15b3:1017", "020000", "vfio-pci", True),
        ("15b3:1017", "020000", None, True),
        ("1414:00ba", "020000", "mana", True),
        ("15b3:c2d2", "080100", None, False),
        ("8086:10d3", "020000", "e1000e", False),
    ],
)
def test_a_device_whose_applications_need_the_kernels_driver_is_refused(
    tree: Tree, ids: str, kind: str, driver: str | None, needed: bool
) -> None:
    tree.pci(NIC, ids, kind, driver=driver)
    assert codes(tree) == (["kernel_driver_needed"] if needed else [])
    device = PciBus(tree.root).get(NIC)
    found = applications(Situation(tree.root, "iommu", "x86_64", [device]))
    assert {prediction["works"] for prediction in found.values()} == {not needed}
    for refusal in unsuitable(tree.root, device, "vfio-pci"):
        assert ids in refusal.evidence[0] and "Do not declare it" in refusal.remedy


@pytest.mark.parametrize("ids", ["8086:37c8", "8086:19e3", "8086:0b25"])
def test_what_is_on_vfio_pcis_denylist_is_foreseen(tree: Tree, ids: str) -> None:
    tree.pci(NIC, ids, "0b4000")
    assert codes(tree) == ["denylisted"] and codes(tree, "uio_pci_generic") == []
    tree.file("/etc/modprobe.d/qat.conf", "options vfio-pci disable_vga=1 disable_denylist=1")
    assert codes(tree) == []
    # The module is there already: what it was loaded with counts.
    tree.file("/sys/module/vfio_pci/parameters/disable_denylist", "N")
    assert codes(tree) == ["denylisted"]
    tree.file("/sys/module/vfio_pci/parameters/disable_denylist", "Y")
    assert codes(tree) == []


@pytest.mark.parametrize(
    "text,refused",
    [
        ("0x0000000079200000 0x00000000791fffff direct\n0x00000000fee00000 0x00000000feefffff msi", True),
        ("0x0000000079200000 0x00000000791fffff direct-relaxable\n0x00000000fee00000 0x00000000feefffff msi", False),
        ("", False),
    ],
)
def test_a_region_that_the_firmware_keeps_mapped_makes_a_group_useless(tree: Tree, text: str, refused: bool) -> None:
    tree.pci(NIC, driver="e1000e")
    tree.group(12, NIC)
    tree.file("/sys/kernel/iommu_groups/12/reserved_regions", text)
    bus = PciBus(tree.root)
    found = group_refusals(tree.root, bus, [bus.get(NIC)], {NIC})
    assert [refusal.code for refusal in found] == (["group_not_viable"] if refused else [])
    assert not refused or ("direct" in found[0].evidence[0] and "firmware setup" in found[0].remedy)


# --- ids of vfio-pci ---


@pytest.fixture
def host(nic: Tree) -> Tree:
    """eth1 is declared in the tests, and eth0 of the same model carries the management connection."""
    nic.pci("0000:00:03.0", driver="e1000e")
    return nic


LINES = [
    ("/etc/modprobe.d/vfio.conf", "# old\noptions vfio-pci ids=8086:10d3",
     "/etc/modprobe.d/vfio.conf:2: ids=8086:10d3"),
    ("/usr/lib/modprobe.d/x.conf", "options vfio_pci ids=1:2,8086:10D3",
     "/usr/lib/modprobe.d/x.conf:1: ids=1:2,8086:10D3"),
    ("/proc/cmdline", "quiet vfio-pci.ids=8086:10d3:ffffffff", "/proc/cmdline: ids=8086:10d3:ffffffff"),
    ("/etc/modprobe.d/c.conf", "options vfio-pci \\\n ids=8086:10d3:ffffffff:ffffffff:020000:ff0000",
     "/etc/modprobe.d/c.conf:1: ids=8086:10d3:ffffffff:ffffffff:020000:ff0000"),
]  # fmt: skip


@pytest.mark.parametrize("path,text,evidence", LINES)
def test_ids_that_vfios_own_mode_would_make_work_are_refused(host: Tree, path: str, text: str, evidence: str) -> None:
    bus = PciBus(host.root)
    assert vfio_ids.id_refusals(host.root, bus, "builtin", {NIC}) == []
    host.file(path, text)
    found = vfio_ids.id_refusals(host.root, bus, "builtin", {NIC})
    assert [refusal.code for refusal in found] == ["vfio_ids"] and found[0].evidence == [
        evidence,
        "0000:00:03.0 (8086:10d3, driver e1000e) is one of these and is not declared",
    ]
    assert vfio_ids.id_refusals(host.root, bus, "builtin", {NIC, "0000:00:03.0"}) == []
    assert vfio_ids.id_refusals(host.root, bus, "iommu", {NIC}) == []
    said = others.warnings(host.root, "iommu", [others.Declared(bus.get(NIC))])
    assert len(said) == 1 and said[0].startswith(evidence)


@pytest.mark.parametrize(
    "text",
    [
        "options vfio-pci ids=8086:10d3:1af4:1100",
        "options vfio-pci ids=8086:10d3:ffffffff:ffffffff:010000:ff0000",
        "options vfio-pci ids=nonsense,8086",
        "options vfio-pci disable_vga=1",
        "options e1000e ids=8086:10d3",
        "#options vfio-pci ids=8086:10d3",
    ],
)
def test_ids_of_no_device_here_are_no_reason(host: Tree, text: str) -> None:
    host.file("/etc/modprobe.d/vfio.conf", text)
    assert vfio_ids.id_refusals(host.root, PciBus(host.root), "builtin", {NIC}) == []


def test_a_file_of_an_administrator_hides_the_packages(host: Tree) -> None:
    host.file("/usr/lib/modprobe.d/vfio.conf", "options vfio-pci ids=8086:10d3")
    host.file("/etc/modprobe.d/vfio.conf", "# nothing")
    assert vfio_ids.id_refusals(host.root, PciBus(host.root), "builtin", {NIC}) == []


# --- network configuration ---

FILES = [
    ("/etc/network/interfaces", "auto lo\n  allow-hotplug eth1", 2),
    ("/etc/network/interfaces", "iface eth1.7 inet dhcp", 1),
    ("/etc/network/interfaces", "iface eth1:0 inet dhcp", 1),
    ("/etc/network/interfaces", "iface br0 inet dhcp\n  bridge_ports eth0 eth1", 2),
    ("/etc/network/interfaces", "iface x inet dhcp\n  hwaddress 52:54:00:00:00:01", 2),
    ("/etc/network/interfaces.d/data", "auto eth1", 1),
    ("/etc/netplan/50-cloud-init.yaml", "network:\n  ethernets:\n    eth1:\n      dhcp4: true", 3),
    ("/etc/netplan/a.yaml", 'network:\n ethernets: {x: {match: {macaddress: "52:54:00:00:00:01"}}}', 2),
    ("/run/netplan/a.yaml", "      interfaces: [eth0, eth1]", 1),
    ("/etc/netplan/a.yaml", "      interfaces:\n      - eth1", 2),
    ("/etc/cloud/cloud.cfg.d/50-net.cfg", "network:\n  config:\n  - name: eth1", 3),
    ("/etc/systemd/network/10-data.network", "[Match]\nName=eth0 eth1\n[Network]\nDHCP=yes", 2),
    ("/etc/systemd/network/10-data.link", "[Match]\nMACAddress=52-54-00-00-00-01", 2),
    ("/etc/systemd/network/10-data.network.d/x.conf", "[Match]\nPath=pci-0000:00:04.0*", 2),
    ("/etc/NetworkManager/system-connections/a.nmconnection", "[connection]\ninterface-name=eth1", 2),
    ("/run/NetworkManager/system-connections/a.nmconnection", "[ethernet]\nmac-address=52:54:00:00:00:01", 2),
    ("/etc/sysconfig/network-scripts/ifcfg-data", "TYPE=Ethernet\nDEVICE=\"eth1\"", 2),
]  # fmt: skip


@pytest.mark.parametrize("path,text,line", FILES)
def test_a_line_of_network_configuration_that_names_the_interface_is_found(
    nic: Tree, path: str, text: str, line: int
) -> None:
    nic.file(path, text)
    found = mentions(nic.root, Identity(frozenset(["eth1"]), frozenset([MAC]), NIC))
    assert [mention.where for mention in found] == ["%s:%d" % (path, line)]
    assert found[0].text == " ".join(text.splitlines()[line - 1].split())


@pytest.mark.parametrize(
    "path,text",
    [
        ("/etc/network/interfaces", "# auto eth1\nauto eth10 eth0.1\niface eth11 inet dhcp"),
        ("/etc/netplan/a.yaml", "network: # eth1\n  ethernets:\n    eth10: {}\n    all: {match: {name: 'eth*'}}"),
        ("/etc/systemd/network/a.network", "[Match]\nName=en* eth*\n[Network]\nDescription=eth1\nAddress=eth1"),
        ("/etc/NetworkManager/system-connections/a.nmconnection", "id=eth1\ninterface-name=eth0"),
        ("/etc/netplan/a.yaml.bak", "eth1:"),
        ("/proc/cmdline", "root=/dev/eth1 net.ifnames=0"),
    ],
)
def test_what_names_another_interface_or_all_is_not(nic: Tree, path: str, text: str) -> None:
    nic.file(path, text)
    assert mentions(nic.root, Identity(frozenset(["eth1"]), frozenset([MAC]), NIC)) == []


def test_the_files_that_interfaces_includes_are_read(nic: Tree) -> None:
    nic.file("/etc/network/interfaces", "source /srv/net/*\nsource-directory more\nsource one")
    for path in ("/srv/net/a", "/etc/network/more/b", "/etc/network/one"):
        nic.file(path, "auto eth1")
    found = mentions(nic.root, Identity(frozenset(["eth1"]), frozenset(), NIC))
    assert {mention.where for mention in found} == {"/srv/net/a:1", "/etc/network/more/b:1", "/etc/network/one:1"}


@pytest.mark.parametrize("word", ["ip=192.0.2.5::192.0.2.1:255.255.255.0::eth1:off", "ip=eth1:dhcp", "ifname=a:" + MAC])
def test_the_kernel_command_line_may_name_it(nic: Tree, word: str) -> None:
    nic.file("/proc/cmdline", "quiet " + word)
    found = mentions(nic.root, Identity(frozenset(["eth1"]), frozenset([MAC]), NIC))
    assert found == [("/proc/cmdline", word)]


def verdict(tree: Tree) -> dict[str, Any]:
    tree.file("/proc/sys/kernel/osrelease", "6.1.0-56-amd64")
    declared = Declaration(devices=[{"address": NIC}], sriov=[], accept_unsafe=True)
    return Preflight(tree.root, GuardContext(tree.root), declared).report(())["verdict"]


def test_the_verdict_warns_before_anything_changes(nic: Tree) -> None:
    nic.file("/etc/netplan/a.yaml", "network:\n  ethernets:\n    eth1: {}")
    nic.file("/etc/driverctl.d/" + NIC, "uio_pci_generic")
    said = [warning for warning in verdict(nic)["warnings"] if NIC in warning]
    assert "/etc/netplan/a.yaml:3 (eth1: {})" in said[0] and "driverctl unset-override" in said[1]


def test_the_verdict_refuses_what_vfio_is_wrong_for(tree: Tree) -> None:
    tree.pci(NIC, "15b3:1017", driver="mlx5_core")
    assert "kernel_driver_needed" in [refusal["code"] for refusal in verdict(tree)["refusals"]]


def test_a_device_that_vfio_is_wrong_for_is_not_bound(machine: Machine, tree: Tree) -> None:
    tree.pci(NIC, "15b3:1017", driver="mlx5_core")
    with pytest.raises(Refused) as caught:
        binding(machine, Request(devices=[{"address": NIC}], sriov=[], accept_unsafe=True))
    assert "kernel_driver_needed" in [refusal.code for refusal in caught.value.refusals]
