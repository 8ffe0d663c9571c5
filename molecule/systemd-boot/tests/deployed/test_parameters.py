# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters came with the boot, by the distribution's own chain, and nothing else on the line changed."""

from __future__ import annotations

from live import connect, on


def test_the_iommu_was_turned_on():
    assert on("sierra", "ls /sys/class/iommu").split() == ["dmar0"]
    assert "intel_iommu=on" in on("sierra", "cat /proc/cmdline").split()


def test_the_large_page_came_with_the_boot():
    assert "hugepagesz=1G hugepages=1" in on("united", "cat /proc/cmdline")
    pages = connect("united").file("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
    assert pages.content_string.strip() == "1"


def test_the_rest_of_the_line_is_there():
    for name in ("sierra", "united"):
        words = on(name, "cat /proc/cmdline").split()
        assert {"ro", "console=ttyS0", "loglevel=5", "mitigations=off"} <= set(words), name
        assert any(word.startswith("root=UUID=") for word in words), name


def test_kernels_to_come_get_them_as_well():
    for name, parameter in (("sierra", "intel_iommu=on"), ("united", "hugepagesz=1G hugepages=1")):
        assert parameter in on(name, "cat /etc/kernel/cmdline"), name
