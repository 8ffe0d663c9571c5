# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages of the scenario sriov share: the physical function, and its virtual ones as iproute2 shows them."""

from __future__ import annotations

import re
import time

import yaml
from live import SCENARIO, nics, on

HOST = "foxtrot"
MAC = "52:54:00:0f:00:00"
PF = nics(HOST)[0]
DIRECTORY = f"/sys/bus/pci/devices/{PF}"
_DECLARED = yaml.safe_load((SCENARIO / "inventory/hosts.yml").read_text(encoding="utf-8"))["noiommu"]["vars"]
SRIOV, DEVICES = _DECLARED["noiommu_sriov"], _DECLARED["noiommu_devices"]
# The data plane's; those that the host keeps.
TAKEN, LEFT = (0, 1, 2), (3, 4, 5)
_LINE = re.compile(r"^\s+vf (\d+)\s+(.*\S)\s*$", re.MULTILINE)


def function(index: int) -> str:
    """The sysfs directory of a virtual function."""
    return f"{DIRECTORY}/virtfn{index}"


def interface(directory: str = DIRECTORY) -> str:
    """The name of a function's interface: that of the physical one, or of another."""
    return on(HOST, f"ls {directory}/net").strip()


def mac_of(index: int) -> str:
    """The MAC address that is declared for a virtual function."""
    return next(entry["mac"] for entry in SRIOV[0]["functions"] if entry["vf"] == [str(index)])


def shown() -> dict[int, str]:
    """Each virtual function as `ip link` shows it; none while the physical one has no interface."""
    said = on(HOST, f"ip -d link show dev $(ls {DIRECTORY}/net) 2>/dev/null || true")
    return {int(index): line for index, line in _LINE.findall(said)}


def shown_within(seconds: float, expected: dict[int, str]) -> dict[int, str]:
    """Return that as soon as it is as expected, or what it is in the end."""
    deadline = time.monotonic() + seconds
    while True:
        found = shown()
        if found == expected or time.monotonic() >= deadline:
            return found
        time.sleep(2)
