# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared state is there, as check mode predicted it: live, and after a reboot without any Ansible run.

What a host's machines.yml says is ``expected_backend`` decides what that state looks like.
"""

from __future__ import annotations

import pytest
from live import connect, hosts, nics

HOSTS = hosts()
TAINT_USER, TAINT_OUT_OF_TREE, TAINT_UNSIGNED = 1 << 6, 1 << 12, 1 << 13


def with_backend(*backends: str) -> list[str]:
    return [name for name, variables in HOSTS.items() if variables["expected_backend"] in backends]


def taint(name: str) -> int:
    return int(connect(name).file("/proc/sys/kernel/tainted").content_string)


def group_of(name: str, nic: str) -> str:
    """The sysfs directory of a device's group."""
    return connect(name).file(f"/sys/bus/pci/devices/{nic}/iommu_group").linked_to


@pytest.mark.parametrize("name", HOSTS)
def test_devices_are_on_vfio_pci(name):
    for nic in nics(name):
        assert connect(name).file(f"/sys/bus/pci/devices/{nic}/driver").linked_to.endswith("/vfio-pci")


@pytest.mark.parametrize("name", HOSTS)
def test_the_group_and_nobody_else_may_open_the_nodes(name):
    prefix = "noiommu-" if HOSTS[name]["expected_backend"] == "builtin" else ""
    for nic in nics(name):
        node = connect(name).file(f"/dev/vfio/{prefix}{group_of(name, nic).rpartition('/')[2]}")
        assert (node.user, node.group, node.mode) == ("root", "dataplane", 0o660)


@pytest.mark.parametrize("name", HOSTS)
def test_pages_are_reserved(name):
    pages = connect(name).file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    assert pages.content_string.strip() == "96"


@pytest.mark.parametrize("name", with_backend("dkms"))
def test_dkms_groups_are_labelled_for_what_they_are(name):
    groups = {group_of(name, nic) for nic in nics(name)}
    assert len(groups) == len(nics(name)), "one group per device"
    assert {connect(name).file(f"{group}/name").content_string.strip() for group in groups} == {"noiommu"}


@pytest.mark.parametrize("name", with_backend("dkms"))
def test_dkms_taint_before_any_use_is_only_that_of_loading(name):
    assert taint(name) == TAINT_OUT_OF_TREE | TAINT_UNSIGNED


@pytest.mark.parametrize("name", with_backend("builtin"))
def test_builtin_mode_is_on_and_our_module_is_not_there(name):
    host = connect(name)
    assert host.file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode").content_string.strip() == "Y"
    assert {host.file(f"{group_of(name, nic)}/name").content_string.strip() for nic in nics(name)} == {"vfio-noiommu"}
    assert taint(name) & TAINT_USER, "the kernel says at once what it let in"


@pytest.mark.parametrize("name", with_backend("iommu"))
def test_iommu_isolates_and_nothing_is_tainted(name):
    host = connect(name)
    for nic in nics(name):
        unit = host.file(f"/sys/bus/pci/devices/{nic}/iommu").linked_to.rpartition("/")[2]
        assert unit.startswith({"intel": "dmar0", "smmuv3": "smmu3."}[HOSTS[name]["rig_iommu"]])
    assert taint(name) == 0


@pytest.mark.parametrize("name", with_backend("builtin", "iommu"))
def test_our_module_is_nowhere(name):
    host = connect(name)
    assert not host.file("/sys/module/noiommu").exists
    assert host.run("find /lib/modules -name 'noiommu.ko*'; ls -d /usr/src/noiommu-*").stdout == ""
