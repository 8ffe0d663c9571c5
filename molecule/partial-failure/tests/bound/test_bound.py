# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After all that, one run takes everything, as check mode had predicted at first."""

from __future__ import annotations

import pytest
from live import connect, nics, on, recorded_changes

HOST = "golf"
DISK = "0000:00:1b.0"


def test_check_mode_had_predicted_exactly_this():
    assert recorded_changes("check-converge-1") == recorded_changes("run-converge-1")


@pytest.mark.parametrize("address", [*nics(HOST), DISK])
def test_it_is_on_vfio_pci_under_its_name(address):
    group = on(HOST, f"basename $(readlink /sys/bus/pci/devices/{address}/iommu_group)").strip()
    assert connect(HOST).file(f"/sys/bus/pci/devices/{address}/driver").linked_to.endswith("/vfio-pci")
    assert on(HOST, f"readlink -f /dev/vfio/by-address/{address}").strip() == f"/dev/vfio/{group}"


def test_a_disk_has_its_serial_numbers_name():
    assert connect(HOST).file("/dev/vfio/by-serial/idle.0").exists
