# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The physical function's driver is reloaded: its virtual ones are made, set up and bound again, without Ansible."""

from __future__ import annotations

import time

from live import connect, on
from virtual_functions import HOST, LEFT, TAKEN, function, shown, shown_within

WITHIN = 300  # seconds, of an emulated processor
SERVICE = "noiommu-hotplug.service"


def driver(index: int) -> str:
    return on(HOST, f"basename $(readlink {function(index)}/driver) 2>/dev/null || true").strip()


def test_they_come_back_with_their_settings():
    before = shown()
    on(HOST, "modprobe -r igb && modprobe igb")
    assert shown_within(WITHIN, before) == before
    deadline = time.monotonic() + WITHIN
    while [driver(index) for index in TAKEN] != ["vfio-pci"] * len(TAKEN) and time.monotonic() < deadline:
        time.sleep(2)
    busy = f"systemctl is-active -q {SERVICE} || ls -A /run/noiommu-hotplug | grep -q ."
    on(HOST, f"udevadm settle; while {busy}; do sleep 1; done")
    drivers = [driver(index) for index in (*TAKEN, *LEFT)]
    assert drivers == ["vfio-pci"] * len(TAKEN) + ["igbvf"] * len(LEFT)
    done = connect(HOST).run("noiommu-verify")
    assert done.rc == 0, done.stdout
