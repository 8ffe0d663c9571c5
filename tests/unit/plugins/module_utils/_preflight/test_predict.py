# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.predict import (
    Situation,
    applications,
    container,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:04:00.0"
BRIDGE = "0000:00:00.0"
APPLICATIONS = {"dpdk", "spdk", "ovs", "vpp_dpdk", "vpp_native"}


def predict(tree: Tree, backend: str | None, machine: str = "x86_64", *addresses: str) -> dict[str, dict[str, Any]]:
    bus = PciBus(tree.root)
    found = applications(Situation(tree.root, backend, machine, [bus.get(address) for address in addresses]))
    assert set(found) == APPLICATIONS
    for prediction in found.values():
        assert prediction["reasons"] and (prediction["works"] or prediction["remedy"] or backend is None)
    return found


def chosen(found: dict[str, dict[str, Any]]) -> dict[str, tuple[str | None, str | None, bool]]:
    return {
        name: (prediction["iova_mode"], prediction["container_type"], prediction["works"])
        for name, prediction in found.items()
    }


def test_the_module_with_its_hint(tree: Tree) -> None:
    found = predict(tree, "dkms")
    assert chosen(found) == {
        "dpdk": ("PA", "type1", True),
        "spdk": ("PA", "type1", True),
        "ovs": ("VA", "type1", False),
        "vpp_dpdk": ("PA", "type1", True),
        "vpp_native": ("VA", "type1", False),
    }
    assert found["dpdk"]["capabilities"] == ["CAP_SYS_RAWIO", "CAP_SYS_ADMIN"]
    assert "the host's first PCI device" in found["dpdk"]["reasons"][0]
    assert "DPDK plugin" in found["vpp_native"]["remedy"]
    # Seen: DPDK is started without a device, and then nothing tells it not to use virtual addresses.
    assert "dpdk-extra=--iova-mode=pa" in found["ovs"]["remedy"]
    assert found["ovs"]["capabilities"] == ["CAP_SYS_RAWIO", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"]


@pytest.mark.parametrize(("hint", "machine"), [("N", "x86_64"), ("Y", "aarch64")])
def test_without_the_hint_dpdk_needs_an_option(tree: Tree, hint: str, machine: str) -> None:
    tree.file("/sys/module/noiommu/parameters/dpdk_pa_hint", hint)
    found = predict(tree, "dkms", machine)
    assert chosen(found)["dpdk"] == ("VA", "type1", False)
    assert found["dpdk"]["remedy"] == "Start it with --iova-mode=pa." and "dpdk-extra" in found["ovs"]["remedy"]
    assert any("virtual addresses" in reason for reason in found["dpdk"]["reasons"])
    # SPDK looks for an Intel IOMMU by itself, on x86.
    assert found["spdk"]["works"] == (machine == "x86_64")


@pytest.mark.parametrize("hint", [True, False])
def test_devices_that_are_taken_tell_more_than_the_parameter(tree: Tree, hint: bool) -> None:
    tree.file("/sys/module/noiommu/parameters/dpdk_pa_hint", "N" if hint else "Y")
    tree.pci(NIC, driver="vfio-pci")
    tree.group(0, NIC, name="noiommu", node="noiommu-" + NIC)
    # Its own node is not what DPDK looks at.
    tree.file("/sys/class/iommu/noiommu-%s/intel-iommu/cap" % NIC, "none")
    tree.pci(BRIDGE, class_code="060000")
    if hint:
        tree.file("/sys/bus/pci/devices/%s/iommu/intel-iommu/cap" % BRIDGE, "none")
    assert predict(tree, "dkms", "x86_64", NIC)["dpdk"]["works"] is hint


def test_vfios_own_mode(tree: Tree) -> None:
    found = chosen(predict(tree, "builtin"))
    assert found.pop("ovs") == ("VA", "noiommu", False)
    assert set(found.values()) == {("PA", "noiommu", True)}


def test_an_iommu(tree: Tree) -> None:
    # 48 bits of addresses: MGAW is 47.
    tree.file("/sys/class/iommu/dmar0/intel-iommu/cap", "d2008c2f0462")
    found = predict(tree, "iommu")
    assert set(chosen(found).values()) == {("VA", "type1", True)}
    assert found["dpdk"]["capabilities"] == []
    # Its own interfaces, wherever the devices are.
    assert found["ovs"]["capabilities"] == ["CAP_NET_ADMIN", "CAP_NET_RAW"]


def test_spdk_does_not_trust_a_narrow_iommu(tree: Tree) -> None:
    tree.file("/sys/class/iommu/dmar0/intel-iommu/cap", "d2260462")
    found = predict(tree, "iommu")
    assert chosen(found)["spdk"] == ("PA", "type1", True) and chosen(found)["dpdk"] == ("VA", "type1", True)
    assert found["spdk"]["capabilities"] == ["CAP_SYS_ADMIN"] and "--iova-mode=va" in found["spdk"]["remedy"]
    assert "39 address bits" in found["spdk"]["reasons"][0]


@pytest.mark.parametrize("hint", ["Y", "N"])
@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD"])
def test_spdk_forces_physical_addresses_on_intel_only(tree: Tree, vendor: str, hint: str) -> None:
    tree.file("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: %s\ncpu family\t: 25" % vendor)
    tree.file("/sys/module/noiommu/parameters/dpdk_pa_hint", hint)
    prediction = predict(tree, "dkms")["spdk"]
    works = vendor == "GenuineIntel" or hint == "Y"
    assert (prediction["iova_mode"], prediction["works"]) == (("PA", True) if works else ("VA", False))
    assert vendor == "GenuineIntel" or "25.09" in prediction["reasons"][0]
    assert works or prediction["remedy"] == "Start it with --iova-mode=pa."


def test_spdk_leaves_the_choice_to_dpdk_beside_an_iommu_of_amd(tree: Tree) -> None:
    tree.file("/proc/cpuinfo", "vendor_id\t: AuthenticAMD")
    prediction = predict(tree, "iommu")["spdk"]
    assert (prediction["iova_mode"], prediction["works"], prediction["capabilities"]) == ("VA", True, [])
    assert "--iova-mode=va" in prediction["remedy"]


def test_an_open_vswitch_that_changes_its_user(tree: Tree) -> None:
    tree.file("/etc/sysconfig/openvswitch", 'OVS_USER_ID="root:root"\nOVS_USER_ID="openvswitch:hugetlbfs"')
    prediction = predict(tree, "dkms")["ovs"]
    assert not prediction["works"] and "root:root" in prediction["remedy"]
    tree.file("/etc/sysconfig/openvswitch", '# OVS_USER_ID="openvswitch:hugetlbfs"')
    assert "dpdk-extra" in predict(tree, "dkms")["ovs"]["remedy"]


def test_no_backend(tree: Tree) -> None:
    found = predict(tree, None)
    assert set(chosen(found).values()) == {(None, None, False)}
    assert container(None, [])["devices"] == [] and container(None, [])["arguments"] == []


def test_missing_pages_are_said(tree: Tree) -> None:
    assert any("no pages" in reason for reason in predict(tree, "dkms")["dpdk"]["reasons"])
    tree.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "4")
    assert not any("no pages" in reason for reason in predict(tree, "dkms")["dpdk"]["reasons"])


def test_a_container_without_an_iommu() -> None:
    found = container("dkms", ["/dev/vfio/7", "/dev/vfio/3", "/dev/vfio/7"])
    assert found["devices"] == ["/dev/vfio/vfio", "/dev/vfio/3", "/dev/vfio/7"]
    assert found["capabilities"] == ["SYS_RAWIO", "SYS_ADMIN"] and not found["user_namespace"]
    assert "--cap-add=SYS_ADMIN" in found["arguments"] and "--device=/dev/vfio/3" in found["arguments"]
    assert {"--ulimit=memlock=-1", "--volume=/dev/hugepages:/dev/hugepages"} <= set(found["arguments"])


def test_a_container_with_an_iommu_needs_no_capability() -> None:
    found = container("iommu", ["/dev/vfio/7"])
    assert found["capabilities"] == [] and found["user_namespace"] and len(found["reasons"]) == 1
