# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools by node, mounts for the group, boot parameters: live, and after a reboot without any Ansible run."""

from __future__ import annotations

import pytest
from live import connect, on


def pool(node: int, size: str) -> int:
    path = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size}/nr_hugepages"
    return int(connect("numa").file(path).content_string)


def test_each_node_has_its_pages():
    assert [pool(0, "2048kB"), pool(1, "2048kB")] == [64, 32]
    assert [pool(0, "1048576kB"), pool(1, "1048576kB")] == [0, 2]


def test_the_large_pages_came_with_the_boot():
    assert "hugepagesz=1G hugepages=1:2" in connect("numa").file("/proc/cmdline").content_string


@pytest.mark.parametrize(
    ("path", "mode", "options"),
    [
        ("/dev/hugepages-1G", "770", {"pagesize=1024M"}),
        ("/srv/huge/2M", "750", {"pagesize=2M", "size=67108864"}),
    ],
)
def test_mounts_belong_to_the_group(path, mode, options):
    shown = on("numa", f"stat -c '%a %U %G' {path}; findmnt -n -o FSTYPE,OPTIONS {path}").split()
    assert shown[:4] == [mode, "root", "dataplane", "hugetlbfs"]
    assert options <= set(shown[4].split(","))


def test_a_page_of_1_gib_on_the_second_node_is_usable():
    """As a member of the group and nobody special; where the page is, the kernel says."""
    on("numa", "useradd --no-create-home --gid dataplane probe")
    script = (
        "import mmap, os\n"
        "handle = os.open('/dev/hugepages-1G/probe', os.O_CREAT | os.O_RDWR)\n"
        "os.ftruncate(handle, 1 << 30)\n"
        "memory = mmap.mmap(handle, 1 << 30)\n"
        "memory[0] = 1\n"
        "print([line for line in open('/proc/self/numa_maps') if 'probe' in line][0])\n"
    )
    try:
        shown = on("numa", "su probe -s /bin/sh -c 'python3 -'", stdin=script)
    finally:
        on("numa", "rm -f /dev/hugepages-1G/probe; userdel probe")
    assert "N1=1" in shown and "kernelpagesize_kB=1048576" in shown


def test_the_iommu_that_was_off_isolates():
    host = connect("dark")
    assert host.run("ls /sys/class/iommu").stdout.split() == ["dmar0"]
    words = host.file("/proc/cmdline").content_string.split()
    assert "intel_iommu=on" in words and "intel_iommu=off" not in words


def test_the_other_host_was_left_to_whoever_turned_its_iommu_on():
    assert not connect("numa").file("/etc/default/grub.d/zz-noiommu-iommu.cfg").exists
