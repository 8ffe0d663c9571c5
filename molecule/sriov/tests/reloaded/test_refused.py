# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What igb's driver cannot do is refused with its reason, and everything is as before."""

from __future__ import annotations

import pytest
from live import module
from virtual_functions import DEVICES, HOST, PF, SRIOV, shown


@pytest.mark.parametrize(
    "setting,said",
    [
        (
            {"vf": ["1"], "link_state": "enable"},
            f"The driver igb did not set link_state of virtual function 1 of {PF}: Operation not supported",
        ),
        (
            {"vf": ["5"], "vlan": 7, "vlan_protocol": "802.1ad"},
            f"did not set vlan, qos, vlan_protocol of virtual function 5 of {PF}: Protocol not supported",
        ),
        (
            {"vf": ["2"], "min_tx_rate": 10},
            f"did not set min_tx_rate, max_tx_rate of virtual function 2 of {PF}: Invalid argument",
        ),
        ({"vf": ["6"], "trust": True}, "there is no virtual function 6: vfs is 6"),
        ({"vf": ["2"], "mac": "52:54:00:0f:01:00"}, f"virtual function 0 of {PF}, virtual function 2 of {PF}"),
    ],
)
def test_it_is_named_and_nothing_changes(setting, said):
    before = shown()
    sriov = [dict(SRIOV[0], functions=[*SRIOV[0]["functions"], setting])]
    result = module(HOST, "vfio_binding", devices=DEVICES, sriov=sriov, accept_unsafe=True)
    assert said in result["msg"] and "NOT put back" not in result["msg"], result
    assert "Remedy:" in result["msg"] and shown() == before
