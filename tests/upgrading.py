# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages of the scenario upgrade share."""

from __future__ import annotations

from live import on

HOST = "uniform"
OLD_PROGRAM = "/usr/local/lib/noiommu/noiommu_host"
# DKMS reads this after dkms.conf.
OVERRIDE = "/etc/dkms/noiommu-1.0.0-{kernel}.conf"


def newest() -> str:
    """The newest installed kernel."""
    return on(HOST, "ls /boot/vmlinuz-* | sed s/.*vmlinuz-// | sort -V | tail -1").strip()


def apt(arguments: str, *, fails: bool = False) -> str:
    """Run apt-get as an operator does; return what it said."""
    said = on(HOST, f"DEBIAN_FRONTEND=noninteractive apt-get -q -y {arguments} 2>&1; echo rc=$?", timeout=1800)
    assert ("rc=0" not in said) == fails, said
    return said
