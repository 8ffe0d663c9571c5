# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One deploy replaced the earlier version, without a trace of its files."""

from __future__ import annotations

from live import nics, on, playbook
from upgrading import HOST, OLD_PROGRAM


def test_nothing_of_the_earlier_program_is_left():
    assert on(HOST, f"ls -d {OLD_PROGRAM} 2>/dev/null || true") == ""
    assert on(HOST, f"grep -rl {OLD_PROGRAM}/ /etc /usr/local /lib/systemd || true") == ""


def test_the_devices_are_served_and_verify_finds_nothing():
    for nic in nics(HOST):
        assert on(HOST, f"readlink /sys/bus/pci/devices/{nic}/driver").strip().endswith("/vfio-pci")
    assert on(HOST, "noiommu-verify").startswith("OK")
    done = playbook("verify", HOST)
    assert done.returncode == 0, done.stdout


def test_the_boot_unit_runs_the_new_program():
    on(HOST, "systemctl restart noiommu-bindings.service")
    assert "noiommu.pyz bind" in on(HOST, "systemctl show -p ExecStart noiommu-bindings.service")
