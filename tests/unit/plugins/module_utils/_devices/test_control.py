# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of the kernel, and how its answers are explained."""

from __future__ import annotations

import errno

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.control import Kernel
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus, PciDevice
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:00:04.0"


class RefusingRoot(Root):
    """Every write to sysfs fails with one errno."""

    errno = errno.EIO

    def write_sysfs(self, path: str, value: str) -> None:
        raise HostError("kernel_write", path, ["%s: refused" % path], errno=self.errno)


def refused(tree: Tree, number: int, request: str, *args: object) -> HostError:
    root = RefusingRoot(str(tree.base))
    root.errno = number
    with pytest.raises(HostError) as caught:
        getattr(Kernel(root, Runner()), request)(PciDevice(root, NIC), *args)
    return caught.value


@pytest.mark.parametrize(
    "number,words",
    [
        (errno.EINVAL, "malformed"),
        (errno.ENODEV, "no such PCI device"),
        (errno.EBUSY, "a driver is bound"),
        (errno.EEXIST, "IOMMU group already"),
        (errno.EPERM, "CAP_SYS_RAWIO"),
        (errno.EOPNOTSUPP, "hardware IOMMU is active"),
    ],
)
def test_each_refusal_to_add_is_explained(tree: Tree, number: int, words: str) -> None:
    tree.pci(NIC)
    tree.file("/sys/module/noiommu/parameters/dpdk_pa_hint", "Y")
    error = refused(tree, number, "add", True)
    assert words in error.message and NIC in error.message and error.remedy and error.evidence
    assert error.code == "module_add" and error.errno == number


@pytest.mark.parametrize(
    "number, reason, remedy",
    [
        (errno.EOPNOTSUPP, "a hardware IOMMU is active on this host, use vfio-pci with that", "backend iommu"),
        (errno.EOPNOTSUPP, "memory is encrypted, a device would not see what the CPU sees", "one with an IOMMU"),
        (errno.EOPNOTSUPP, "in a Xen PV domain, bus addresses differ from physical addresses", "one with an IOMMU"),
        (errno.EPERM, "firmware says that its port is open to untrusted devices", "external port"),
        (errno.EINVAL, "it is a bridge", "Correct the address"),
    ],
)
def test_the_module_s_own_reason_is_told(tree: Tree, number: int, reason: str, remedy: str) -> None:
    tree.pci(NIC)
    tree.file("/sys/module/noiommu/parameters/dpdk_pa_hint", "Y")
    tree.file("/dev/kmsg", "3,1,0,-;noiommu: loaded\n3,2,5,-;e1000e %s: not added: %s\n" % (NIC, reason))
    error = refused(tree, number, "add", True)
    assert error.message == "The noiommu module refused to add %s: %s." % (NIC, reason)
    assert remedy in error.remedy and any(reason in line for line in error.evidence)


def test_a_refusal_to_remove_is_explained(tree: Tree) -> None:
    tree.pci(NIC)
    tree.group(0, NIC, name="noiommu", node="noiommu-" + NIC)
    assert "VFIO still uses it" in refused(tree, errno.EBUSY, "remove").message


def test_an_unknown_errno_is_passed_on(tree: Tree) -> None:
    tree.pci(NIC)
    assert refused(tree, errno.EIO, "add", True).code == "kernel_write"


def test_requests_for_what_is_so_already_write_nothing(machine: Machine) -> None:
    machine.tree.pci(NIC, driver="e1000e")
    device = PciBus(machine.root).get(NIC)
    machine.kernel.bind(device, "e1000e")
    machine.kernel.override(device, None)
    machine.kernel.remove(device)
    machine.unbind(NIC)
    machine.kernel.unbind(device)
    assert machine.requests == []


def test_an_opaque_einval_of_vfio_is_explained(machine: Machine) -> None:
    machine.tree.pci(NIC)
    machine.load("vfio-pci")
    device = PciBus(machine.root).get(NIC)
    machine.kernel.override(device, "vfio-pci")
    with pytest.raises(HostError) as caught:
        machine.kernel.bind(device, "vfio-pci")
    assert "no IOMMU group" in caught.value.remedy and "EINVAL" in caught.value.remedy
    assert any("Invalid argument" in line for line in caught.value.evidence)


def test_a_group_without_its_character_device(machine: Machine) -> None:
    machine.tree.pci(NIC)
    device = PciBus(machine.root).get(NIC)
    with pytest.raises(HostError, match="no IOMMU group"):
        machine.kernel.wait_for_group(device)
    machine.tree.group(7, NIC)
    with pytest.raises(HostError, match="/dev/vfio/7 did not appear"):
        machine.kernel.wait_for_group(device)
    machine.tree.file("/dev/vfio/7")
    assert machine.kernel.wait_for_group(device) == "/dev/vfio/7"


@pytest.mark.parametrize(
    "said,remedy",
    [
        ("modprobe: FATAL: Module noiommu not found in directory /lib/modules/6.1", "role baremetal.noiommu.kmod"),
        ("could not insert 'noiommu': Key was rejected by service", "mokutil"),
        ("could not insert 'noiommu': Operation not permitted", "become"),
        ("could not insert 'noiommu': Exec format error", "dmesg"),
        ("modprobe: No such file or directory (ENOENT)", "package kmod"),
    ],
)
def test_modprobes_words_become_a_remedy(tree: Tree, said: str, remedy: str) -> None:
    class Says(Runner):
        def run(self, *argv: str) -> RunResult:
            return RunResult(1, "", said)

    with pytest.raises(HostError) as caught:
        Kernel(tree.root, Says()).load("noiommu")
    assert remedy in caught.value.remedy and said in caught.value.evidence[0]


def test_interfaces_come_back_up_under_their_new_name(machine: Machine) -> None:
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.net("enp0s4", NIC, "52:54:00:00:00:11")
    wanted = [
        {"name": "eth1", "mac": "52:54:00:00:00:11", "up": True},
        {"name": "eth9", "mac": "52:54:00:00:00:99", "up": False},
    ]
    missing = machine.kernel.restore_links({NIC: wanted, "0000:00:0f.0": []})
    assert missing == ["eth9"] and machine.requests == ["link up enp0s4"]


def test_users_of_a_group(tree: Tree) -> None:
    tree.file("/dev/vfio/3")
    tree.file("/dev/vfio/4")
    tree.file("/proc/99/comm", "testpmd")
    tree.dir("/proc/99/fd")
    tree.at("/proc/99/fd/5").symlink_to("/dev/vfio/3")
    found = Kernel(tree.root, Runner()).users(["/dev/vfio/3", "/dev/vfio/4", "/dev/vfio/5"])
    assert found == {"/dev/vfio/3": ["/dev/vfio/3 is open in process 99 (testpmd)"]}
