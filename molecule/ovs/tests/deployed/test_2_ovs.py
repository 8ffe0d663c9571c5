# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open vSwitch on DPDK, from the distribution and started by its own unit, forwards between the two bound ports."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from live import RUN, SCENARIO, connect, on
from wires import ends, ping

HOST = "switch"
PORTS = {"dpdk0": "0000:00:10.0", "dpdk1": "0000:00:11.0"}
COUNT = 30
DATABASE = "/etc/openvswitch/conf.db"


@pytest.fixture(scope="module")
def bridge():
    """A bridge in userspace with both ports; afterwards Open vSwitch has its first database, and is stopped."""
    on(HOST, f"systemctl start ovsdb-server ovs-vswitchd && cp -p {DATABASE} /run/conf.db")
    # It starts DPDK before it knows any device, so no device can tell DPDK about addresses: noiommu_info says so.
    on(
        HOST,
        "ovs-vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-extra=--iova-mode=pa"
        " && systemctl restart ovs-vswitchd",
    )
    try:
        add = " ".join(
            f"-- add-port br0 {port} -- set Interface {port} type=dpdk options:dpdk-devargs={nic}"
            for port, nic in PORTS.items()
        )
        on(HOST, f"ovs-vsctl --timeout=300 add-br br0 -- set bridge br0 datapath_type=netdev {add}")
        yield
    finally:
        on(
            HOST,
            "ovs-vsctl --timeout=300 del-br br0; systemctl stop ovs-vswitchd ovsdb-server; modprobe -r tun;"
            f" cp -p /run/conf.db {DATABASE} && rm /run/conf.db",
        )


def interface(port: str, column: str):
    return on(HOST, f"ovs-vsctl get Interface {port} {column}").strip()


def test_it_is_the_distributions_unit_with_our_drop_in(bridge):
    shown = on(HOST, "systemctl show -p FragmentPath -p DropInPaths -p LimitMEMLOCK ovs-vswitchd")
    values = dict(line.split("=", 1) for line in shown.splitlines())
    assert values["FragmentPath"].endswith("lib/systemd/system/ovs-vswitchd.service")
    assert "ovs-vswitchd.service.d/60-noiommu.conf" in values["DropInPaths"]
    assert values["LimitMEMLOCK"] == "infinity"
    assert "ok installed" in on(HOST, "dpkg -s openvswitch-switch-dpdk")


def test_it_drives_both_ports(bridge):
    assert on(HOST, "ovs-vsctl get Open_vSwitch . dpdk_initialized").strip() == "true"
    for port in PORTS:
        assert interface(port, "error") == "[]"
        assert interface(port, "admin_state") == "up"


def test_packets_cross(bridge, capsys):
    with ends(HOST):
        answered = ping(HOST, COUNT)
    counted = {port: {way: int(interface(port, f"statistics:{way}_packets")) for way in ("rx", "tx")} for port in PORTS}
    with capsys.disabled():
        print(f"\n{COUNT} sent, {answered} answered; Open vSwitch counted {counted}")
    assert answered == COUNT
    assert all(count >= COUNT for both in counted.values() for count in both.values())


def module(name: str, arguments: dict) -> dict:
    """Return what one of the collection's modules says about the host."""
    done = subprocess.run(
        [
            "ansible",
            HOST,
            f"--inventory={RUN / 'inventory.yml'}",
            f"--inventory={SCENARIO / 'inventory'}",
            "--become",
            "-m",
            f"baremetal.noiommu.{name}",
            *(["-a", json.dumps(arguments)] if arguments else []),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.split("=>", 1)[1])


def test_what_was_predicted_is_what_happened(bridge):
    said = module("noiommu_info", {"accept_unsafe": True, "devices": [{"address": nic} for nic in PORTS.values()]})
    found = {
        name: (application["works"], application["iova_mode"], application["container_type"])
        for name, application in said["applications"].items()
    }
    assert found["dpdk"] == (True, "PA", "type1")
    assert found["ovs"] == (False, "VA", "type1")
    assert "--iova-mode=pa" in said["applications"]["ovs"]["remedy"]
    log = connect(HOST).file("/var/log/openvswitch/ovs-vswitchd.log").content_string
    assert "Selected IOVA mode 'PA'" in log
    assert len(said["container"]["devices"]) == 3


def test_the_taint_is_attributed_to_those_who_did_it(bridge):
    said = module("kernel_taint_info", {})
    (user,) = [flag for flag in said["flags"] if flag["name"] == "user"]
    assert {cause["device"] for cause in user["attribution"]} >= set(PORTS.values())
    assert all(cause["since"] and cause["pid"] and cause["insecure_passthrough"] for cause in user["attribution"])
    assert said["insecure_passthrough"] is True
