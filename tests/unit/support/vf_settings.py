# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declared settings of virtual functions, and what a driver was told."""

from __future__ import annotations

from typing import Any

from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_rtnetlink import Driver
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import MAC, PF

FIRST, SECOND = "52:54:00:aa:00:00", "52:54:00:aa:00:01"
FUNCTIONS = [
    {"vf": ["0"], "mac": FIRST, "trust": True},
    {"vf": ["3"], "mac": SECOND, "spoof_check": False, "max_tx_rate": 100, "link_state": "disable"},
    {"vf": ["0", "2-3"], "vlan": 100, "qos": 3},
]


def want(functions: list[dict[str, Any]], vfs: int = 4, *taken: str) -> Request:
    """Virtual functions with settings, the first three of which are the data plane's."""
    devices = [{"pf": MAC, "vf": list(taken or ("0-2",))}]
    return Request(devices, accept_unsafe=True, sriov=[{"pf": "pf0", "vfs": vfs, "functions": functions}])


SET_UP, PLAIN = want(FUNCTIONS), want([])


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def order(host: Machine, *parts: str) -> list[int]:
    """Where the first requests with these parts came."""
    return [next(at for at, request in enumerate(host.requests) if part in request) for part in parts]


def is_as_declared(driver: Driver) -> bool:
    first, third, last = (driver.of(PF, index) for index in (0, 2, 3))
    return (
        (first["mac"], first["trust"], first["vlan"], first["spoof_check"]) == (raw(FIRST), 1, (100, 3, 0x8100), 1)
        and (third["mac"], third["vlan"]) == (b"\0" * 6, (100, 3, 0x8100))
        and (last["mac"], last["spoof_check"], last["rate"], last["link_state"]) == (raw(SECOND), 0, (0, 100), 2)
    )
