# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may lock memory, and what clients of VFIO are given and denied."""

from __future__ import annotations

import pytest
from live import hosts, on, run_python, steps_of

NIC = "0000:00:10.0"
TAINT_USER = 1 << 6


@pytest.mark.parametrize("name", hosts())
def test_members_may_lock_memory(name):
    """Through PAM, as a login of a member gets it."""
    on(name, "useradd --no-create-home --gid dataplane probe")
    try:
        assert on(name, "su probe -s /bin/sh -c 'ulimit -l'").strip() == "unlimited"
    finally:
        on(name, "userdel probe")


def test_client_maps_only_where_iova_is_the_bus_address():
    """A VFIO client of our own: the contract, and the taint at the first claim, not before."""
    report = run_python("alpha", "clients/vfio_client.py", NIC)
    steps = steps_of(report)
    maps = {name: error for name, error in steps.items() if name.startswith("map_")}
    assert maps.pop("map_physical") == "", steps
    assert steps["unmap_physical"] == "", steps
    assert len(maps) >= 5 and set(maps.values()) == {"EINVAL"}, maps
    assert report["device"]["irqs"]["msix"] > 0, report["device"]
    assert report["taint_before"] & TAINT_USER == 0
    assert report["taint_attached"] & TAINT_USER


def test_client_without_cap_sys_rawio_is_refused_though_it_may_open():
    report = run_python("bravo", "clients/vfio_client.py", "--drop-rawio", NIC)
    steps = steps_of(report)
    assert (steps["open_container"], steps["open_group"]) == ("", "")
    assert steps["set_container"] == "EPERM", steps
    assert report["taint_after"] & TAINT_USER == 0


def test_the_same_client_on_the_secure_host_may_choose_its_iova():
    """What isolation looks like: the low address that is refused elsewhere is translated here, untainted."""
    report = run_python("secure", "clients/vfio_client.py", NIC)
    assert steps_of(report)["map_low"] == "", report
    assert report["taint_after"] == 0
