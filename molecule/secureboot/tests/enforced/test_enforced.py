# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""With enforced signatures alone, the deploy went on as it had predicted."""

from __future__ import annotations

from live import connect, on, recorded_changes
from signing import load_unsigned

HOST = "tango"
NIC = "0000:00:10.0"
OUT_OF_TREE = 1 << 12


def test_check_mode_had_predicted_exactly_this():
    assert recorded_changes("check-converge-1") == recorded_changes("run-converge-1")


def test_the_device_is_bound_through_a_signed_module():
    assert connect(HOST).file(f"/sys/bus/pci/devices/{NIC}/driver").linked_to.endswith("/vfio-pci")
    assert on(HOST, "cat /sys/module/module/parameters/sig_enforce").strip() == "Y"
    assert int(on(HOST, "cat /proc/sys/kernel/tainted")) == OUT_OF_TREE


def test_an_unsigned_module_does_not_load():
    assert "rejected" in load_unsigned(HOST) or "not available" in load_unsigned(HOST)
