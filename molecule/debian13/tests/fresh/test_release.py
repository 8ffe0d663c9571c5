# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host is what the scenario says."""

from __future__ import annotations

from live import on


def test_release_and_kernel():
    assert on("delta", ". /etc/os-release; echo $VERSION_ID").strip() == "13"
    assert on("delta", "uname -r").startswith("6.12.")


def test_the_slot_has_its_number():
    assert on("delta", "cat /sys/bus/pci/slots/7/address").strip() == "0000:01:00"
