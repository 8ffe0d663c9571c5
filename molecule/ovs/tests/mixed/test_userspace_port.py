# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel interface in Open vSwitch's userspace datapath is the host's, and nothing in sysfs says so."""
from __future__ import annotations

import pytest
from live import changes_since_baseline, on, refused

NIC = "0000:00:10.0"


@pytest.fixture
def port():
    name = on("spare", f"ls /sys/bus/pci/devices/{NIC}/net").strip()
    on("spare", f"ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 {name}")
    assert "ovs-system" not in on("spare", "ls /sys/class/net")
    yield name
    on("spare", f"ovs-vsctl del-br br0; ip link set {name} down")


def test_it_is_refused(port):
    refused("spare", "guarded_device", f"{port}: packet socket of process", "(ovs-vswitchd)", "ovs-vsctl del-port",
            noiommu_devices=[{"address": NIC}])


def test_the_host_is_as_it_was():
    assert changes_since_baseline("spare") == []
