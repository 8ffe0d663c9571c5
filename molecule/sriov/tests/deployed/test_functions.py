# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual functions are there and bound, under names that do not depend on how the kernel counts."""

from __future__ import annotations

import pytest
from live import broken, connect, nics, on, recorded_changes

HOST = "foxtrot"
MAC = "52:54:00:0f:00:00"
PF = nics(HOST)[0]
TAKEN, LEFT = (0, 1, 2), 3


def function(index: int) -> str:
    """The sysfs directory of a virtual function."""
    return f"/sys/bus/pci/devices/{PF}/virtfn{index}"


def driver(directory: str) -> str:
    return connect(HOST).run(f"basename $(readlink {directory}/driver)").stdout.strip()


def test_check_mode_had_predicted_exactly_this():
    assert recorded_changes("check-converge-1") == recorded_changes("run-converge-1")


def test_there_are_four_and_the_host_kept_the_physical_one():
    assert connect(HOST).file(f"/sys/bus/pci/devices/{PF}/sriov_numvfs").content_string.strip() == "4"
    assert connect(HOST).file(f"/sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe").content_string.strip() == "1"
    assert driver(f"/sys/bus/pci/devices/{PF}") == "igb"


@pytest.mark.parametrize("index", TAKEN)
def test_the_declared_ones_are_on_vfio_pci_and_never_had_an_interface(index):
    address = on(HOST, f"basename $(readlink {function(index)})").strip()
    assert driver(function(index)) == "vfio-pci"
    assert f"igbvf {address}" not in on(HOST, "dmesg")


def test_the_other_one_is_the_hosts():
    assert driver(function(LEFT)) == "igbvf"


@pytest.mark.parametrize("index", TAKEN)
def test_their_names_lead_to_their_groups(index):
    group = on(HOST, f"basename $(readlink {function(index)}/iommu_group)").strip()
    address = on(HOST, f"basename $(readlink {function(index)})").strip()
    for name in (f"by-address/{address}", f"by-mac/{MAC}-vf{index}"):
        assert on(HOST, f"readlink -f /dev/vfio/{name}").strip() == f"/dev/vfio/{group}"


def test_dpdk_opens_them():
    """Unmodified and, with -a for them only, in the right mode. They answer while the physical one is up."""
    addresses = [on(HOST, f"basename $(readlink {function(index)})").strip() for index in TAKEN[:2]]
    interface = on(HOST, f"ls /sys/bus/pci/devices/{PF}/net").strip()
    pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    with broken(
        HOST,
        f"ip link set {interface} up && echo 64 > {pages}",
        # An ended testpmd keeps its pages in files; these were never declared.
        f"rm -f /dev/hugepages/rtemap_*; echo 0 > {pages}; ip link set {interface} down",
    ):
        said = on(
            HOST,
            f"timeout -s INT 60 dpdk-testpmd -l 0-1 --log-level=lib.eal:info -a {addresses[0]} -a {addresses[1]}"
            " -- --total-num-mbufs=2048 --stats-period=5 --tx-first </dev/null 2>&1; true",
        )
    assert "Selected IOVA mode 'PA'" in said, said
    assert f"net_e1000_igb_vf (8086:10ca) device: {addresses[0]}" in said, said
