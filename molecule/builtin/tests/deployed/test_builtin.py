# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users of VFIO's own no-IOMMU mode meet: nodes of another name, and CAP_SYS_RAWIO asked for at opening them."""

from __future__ import annotations

from live import nics, on

HOST = "foxtrot"


def test_no_node_looks_like_an_isolated_group():
    assert [name for name in on(HOST, "ls /dev/vfio").split() if name.isdigit()] == []


def test_the_mode_is_set_for_every_later_boot():
    assert "options vfio enable_unsafe_noiommu_mode=1" in on(HOST, "cat /etc/modprobe.d/*noiommu*")


def test_a_member_without_the_capability_is_refused_by_the_kernel():
    group = on(HOST, f"basename $(readlink /sys/bus/pci/devices/{nics(HOST)[0]}/iommu_group)").strip()
    on(HOST, "useradd --no-create-home --gid dataplane probe")
    try:
        said = on(HOST, f"su probe -s /bin/sh -c 'exec 3<>/dev/vfio/noiommu-{group}' 2>&1; true")
    finally:
        on(HOST, "userdel probe")
    assert "Operation not permitted" in said and "Permission denied" not in said, said
