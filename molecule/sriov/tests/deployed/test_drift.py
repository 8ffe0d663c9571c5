# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody sets a virtual function otherwise: it is named, and set right by the same declaration."""

from __future__ import annotations

from live import connect, module, on
from virtual_functions import DEVICES, HOST, PF, SRIOV, interface, shown


def test_drift_is_named_and_set_right():
    before = shown()
    assert connect(HOST).run("noiommu-verify").rc == 0
    on(HOST, f"ip link set dev {interface()} vf 3 vlan 101 && ip link set dev {interface()} vf 0 trust off")
    done = connect(HOST).run("noiommu-verify")
    assert done.rc == 1
    assert f"{PF}: virtual function 0 has trust off instead of trust on" in done.stdout, done.stdout
    assert f"{PF}: virtual function 3 has vlan 101 instead of vlan 100" in done.stdout, done.stdout
    result = module(HOST, "vfio_binding", devices=DEVICES, sriov=SRIOV, accept_unsafe=True)
    assert result.get("steps") == [
        f"{PF}: virtual function 0: set trust on",
        f"{PF}: virtual function 3: set vlan 100, qos 0, vlan_protocol 802.1Q",
    ], result
    assert shown() == before and connect(HOST).run("noiommu-verify").rc == 0
