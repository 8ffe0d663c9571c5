# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared state is there: live, and after a reboot without any Ansible run."""
from __future__ import annotations

import pytest
from live import connect, on, recorded_changes, run_python

INSECURE = ("alpha", "bravo")
EVERY = (*INSECURE, "secure")
NICS = ("0000:00:10.0", "0000:00:11.0")
TAINT_USER = 1 << 6
TAINT_OUT_OF_TREE_AND_UNSIGNED = (1 << 12) | (1 << 13)


def taint(host) -> int:
    return int(host.file("/proc/sys/kernel/tainted").content_string)


def test_check_mode_had_predicted_exactly_this():
    assert recorded_changes("check-converge-1") == recorded_changes("run-converge-1")


@pytest.mark.parametrize("name", EVERY)
def test_devices_are_on_vfio_pci(name):
    host = connect(name)
    for nic in NICS:
        assert host.file(f"/sys/bus/pci/devices/{nic}/driver").linked_to.endswith("/vfio-pci")


@pytest.mark.parametrize("name", INSECURE)
def test_groups_are_labelled_for_what_they_are(name):
    host = connect(name)
    groups = {host.file(f"/sys/bus/pci/devices/{nic}/iommu_group").linked_to for nic in NICS}
    assert len(groups) == len(NICS), "one group per device"
    for group in groups:
        assert host.file(f"{group}/name").content_string.strip() == "noiommu"


def test_the_secure_host_has_hardware_groups_and_none_of_our_module():
    host = connect("secure")
    for nic in NICS:
        assert host.file(f"/sys/bus/pci/devices/{nic}/iommu").linked_to.endswith("/dmar0")
    assert not host.file("/sys/module/noiommu").exists
    assert host.run("find /lib/modules -name 'noiommu.ko*'").stdout == ""
    assert not host.file("/usr/src/noiommu-1.0.0").exists


@pytest.mark.parametrize("name", EVERY)
def test_pages_are_reserved(name):
    assert connect(name).file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").content_string.strip() == "96"


@pytest.mark.parametrize("name", EVERY)
def test_the_group_and_nobody_else_may_open_the_nodes(name):
    host = connect(name)
    for nic in NICS:
        group = host.run(f"basename $(readlink /sys/bus/pci/devices/{nic}/iommu_group)").stdout.strip()
        node = host.file(f"/dev/vfio/{group}")
        assert (node.user, node.group, node.mode) == ("root", "dataplane", 0o660)


@pytest.mark.parametrize("name", EVERY)
def test_members_may_lock_memory(name):
    """Through PAM, as a login of a member gets it."""
    on(name, "useradd --no-create-home --gid dataplane probe")
    try:
        assert on(name, "su probe -s /bin/sh -c 'ulimit -l'").strip() == "unlimited"
    finally:
        on(name, "userdel probe")


def test_taint_is_zero_on_the_secure_host():
    assert taint(connect("secure")) == 0


@pytest.mark.parametrize("name", INSECURE)
def test_taint_before_any_use_is_only_that_of_loading(name):
    assert taint(connect(name)) == TAINT_OUT_OF_TREE_AND_UNSIGNED


def steps_of(report: dict) -> dict[str, str]:
    """Return what became of each step of the client: "" for success, else the errno's name."""
    return {step["step"]: step["error"] for step in report["steps"]}


def test_client_maps_only_where_iova_is_the_bus_address():
    """A VFIO client of our own: the contract, and the taint at the first attach, not before."""
    report = run_python("alpha", "clients/vfio_client.py", NICS[0])
    steps = steps_of(report)
    maps = {name: error for name, error in steps.items() if name.startswith("map_")}
    assert maps.pop("map_physical") == "", steps
    assert steps["unmap_physical"] == "", steps
    assert len(maps) >= 5 and set(maps.values()) == {"EINVAL"}, maps
    assert report["device"]["irqs"]["msix"] > 0, report["device"]
    assert report["taint_before"] & TAINT_USER == 0
    assert report["taint_attached"] & TAINT_USER


def test_client_without_cap_sys_rawio_is_refused_though_it_may_open():
    report = run_python("bravo", "clients/vfio_client.py", "--drop-rawio", NICS[0])
    steps = steps_of(report)
    assert (steps["open_container"], steps["open_group"], steps["set_container"]) == ("", "", "")
    assert steps["set_iommu"] == "EPERM", steps
    assert report["taint_after"] & TAINT_USER == 0


def test_the_same_client_on_the_secure_host_may_choose_its_iova():
    """What isolation looks like: the low address that is refused elsewhere is translated here, untainted."""
    report = run_python("secure", "clients/vfio_client.py", NICS[0])
    assert steps_of(report)["map_low"] == "", report
    assert report["taint_after"] == 0
