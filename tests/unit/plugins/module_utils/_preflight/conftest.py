# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that preflight judges."""

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.preflight import (
    DISK,
    MAC,
    NIC,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.fixture
def host(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A stock Debian host without an IOMMU, with a spare network card and a mounted disk."""
    build_host(tree)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", KERNEL, "#1", "x86_64")))
    for kernel in (KERNEL, OTHER):
        tree.file("/lib/modules/%s/modules.dep" % kernel, "kernel/drivers/vfio/pci/vfio-pci.ko:")
        tree.file("/boot/config-" + kernel, "CONFIG_VFIO=m\n# CONFIG_VFIO_NOIOMMU is not set")
    tree.file("/usr/bin/gcc")
    tree.file("/sbin/modprobe")
    tree.file("/etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main")
    tree.dir("/run/systemd/system")
    tree.file("/proc/sys/kernel/tainted", "0")
    tree.pci("0000:00:00.0", "8086:29c0", "060000")
    tree.pci(NIC, "8086:10d3", "020000", "e1000e", numa_node=1)
    tree.net("eth1", NIC, MAC)
    real = tree.pci(DISK, "1b36:0010", "010802", "nvme")
    tree.block("nvme0n1", real + "/nvme/nvme0", "259:0")
    tree.mounts(("259:0", "/", "/dev/nvme0n1"))
    tree.pci("0000:06:00.0", "8086:1234", "0c0330")
    return tree
