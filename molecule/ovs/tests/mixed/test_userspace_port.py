# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel interface in Open vSwitch's userspace datapath is the host's, and nothing in sysfs says so."""

from __future__ import annotations

import pytest
from live import changes_since_baseline, on, refused

HOST, NIC = "spare", "0000:00:10.0"
DATABASE = "/etc/openvswitch/conf.db"


def modules() -> set[str]:
    return set(on(HOST, "cut -d' ' -f1 /proc/modules").split())


@pytest.fixture
def port():
    """An interface that is a port; afterwards Open vSwitch has its first database, and is stopped."""
    name, before = on(HOST, f"ls /sys/bus/pci/devices/{NIC}/net").strip(), modules()
    on(HOST, f"cp -p {DATABASE} /run/conf.db")
    try:
        on(HOST, f"ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 {name}")
        assert "ovs-system" not in on(HOST, "ls /sys/class/net")
        yield name
    finally:
        on(
            HOST,
            f"ovs-vsctl del-br br0; ip link set {name} down; systemctl stop ovs-vswitchd ovsdb-server;"
            f" cp -p /run/conf.db {DATABASE} && rm /run/conf.db",
        )
        on(HOST, f"modprobe -r {' '.join(modules() - before)}; true")


def test_it_is_refused(port):
    refused(
        HOST,
        "guarded_device",
        f"{port}: packet socket of process",
        "(ovs-vswitchd)",
        "ovs-vsctl del-port",
        noiommu_devices=[{"address": NIC}],
    )


def test_the_host_is_as_it_was():
    assert changes_since_baseline(HOST) == []
