# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual functions are there, set up and bound, under names that do not depend on how the kernel counts."""

from __future__ import annotations

import pytest
from live import broken, connect, on, recorded_changes
from virtual_functions import DIRECTORY, HOST, LEFT, MAC, TAKEN, function, mac_of, shown

# What `ip link` shows of each, and what it does not.
SETTINGS = {
    0: ("link/ether 52:54:00:0f:01:00 ", ", vlan 200, qos 3, ", "spoof checking on", "trust on"),
    1: ("link/ether 52:54:00:0f:01:01 ", "max_tx_rate 100Mbps", "spoof checking on", "trust off"),
    2: ("spoof checking on", "trust off"),
    3: ("link/ether 52:54:00:0f:01:03 ", ", vlan 100, ", "spoof checking on", "trust off"),
    4: ("link/ether 52:54:00:0f:01:04 ", ", vlan 100, ", "spoof checking off", "trust on"),
    5: ("link/ether 52:54:00:0f:01:05 ", "spoof checking on", "trust off"),
}
UNTAGGED = (1, 2, 5)


def driver(directory: str) -> str:
    return connect(HOST).run(f"basename $(readlink {directory}/driver)").stdout.strip()


def test_check_mode_had_predicted_exactly_this():
    assert recorded_changes("check-converge-1") == recorded_changes("run-converge-1")


def test_there_are_six_and_the_host_kept_the_physical_one():
    assert connect(HOST).file(f"{DIRECTORY}/sriov_numvfs").content_string.strip() == "6"
    assert connect(HOST).file(f"{DIRECTORY}/sriov_drivers_autoprobe").content_string.strip() == "1"
    assert driver(DIRECTORY) == "igb"


@pytest.mark.parametrize("index", SETTINGS)
def test_the_driver_has_their_settings(index):
    line = shown()[index]
    assert [part for part in SETTINGS[index] if part not in line] == [], line
    assert (", vlan " in line) == (index not in UNTAGGED), line


@pytest.mark.parametrize("index", LEFT)
def test_the_hosts_driver_learned_the_address_when_it_was_bound(index):
    assert on(HOST, f"cat {function(index)}/net/*/address").strip() == mac_of(index)


@pytest.mark.parametrize("index", TAKEN)
def test_the_declared_ones_are_on_vfio_pci_and_never_had_an_interface(index):
    address = on(HOST, f"basename $(readlink {function(index)})").strip()
    assert driver(function(index)) == "vfio-pci"
    assert f"igbvf {address}" not in on(HOST, "dmesg")


@pytest.mark.parametrize("index", LEFT)
def test_the_others_are_the_hosts(index):
    assert driver(function(index)) == "igbvf"


@pytest.mark.parametrize("index", TAKEN)
def test_their_names_lead_to_their_groups(index):
    group = on(HOST, f"basename $(readlink {function(index)}/iommu_group)").strip()
    address = on(HOST, f"basename $(readlink {function(index)})").strip()
    for name in (f"by-address/{address}", f"by-mac/{MAC}-vf{index}"):
        assert on(HOST, f"readlink -f /dev/vfio/{name}").strip() == f"/dev/vfio/{group}"


def test_dpdk_opens_them():
    """Unmodified and, with -a for them only, in the right mode. They answer because the physical one was set up."""
    addresses = [on(HOST, f"basename $(readlink {function(index)})").strip() for index in TAKEN[:2]]
    pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    with broken(
        HOST,
        f"echo 64 > {pages}",
        # An ended testpmd keeps its pages in files; these were never declared.
        f"rm -f /dev/hugepages/rtemap_*; echo 0 > {pages}",
    ):
        said = on(
            HOST,
            f"timeout -s INT 60 dpdk-testpmd -l 0-1 --log-level=lib.eal:info -a {addresses[0]} -a {addresses[1]}"
            " -- --total-num-mbufs=2048 --stats-period=5 --tx-first </dev/null 2>&1; true",
        )
    assert "Selected IOVA mode 'PA'" in said, said
    assert f"net_e1000_igb_vf (8086:10ca) device: {addresses[0]}" in said, said
    for port, index in enumerate(TAKEN[:2]):
        assert f"Port {port}: {mac_of(index).upper()}" in said, said
