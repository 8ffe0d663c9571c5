# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An earlier version of the collection serves the host."""

from __future__ import annotations

from live import nics, on
from upgrading import HOST, OLD_PROGRAM


def test_its_program_is_a_directory_of_modules():
    assert "__main__.py" in on(HOST, f"ls {OLD_PROGRAM}").split()


def test_it_serves_the_devices():
    for nic in nics(HOST):
        assert on(HOST, f"readlink /sys/bus/pci/devices/{nic}/driver").strip().endswith("/vfio-pci")
