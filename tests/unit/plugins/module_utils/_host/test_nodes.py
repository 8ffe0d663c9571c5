# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guards of whatever else a device has: character devices of any kind that somebody has open, and consoles."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC, guards, kinds
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def character(tree: Tree, place: str, numbers: str, subsystem: str, node: str = "") -> None:
    """Add a character device in a directory below /sys/devices, with its name in /dev where that differs."""
    if node:
        tree.file(place + "/uevent", "MAJOR=1\nDEVNAME=%s" % node)
    else:
        tree.dir(place)
    tree.link("/sys/dev/char/" + numbers, place)
    tree.link(place + "/subsystem", "/sys/class/" + subsystem)


def opened(tree: Tree, path: str, comm: str = "pppd") -> None:
    tree.file("/proc/70/comm", comm)
    tree.dir("/proc/70/fd")
    tree.at("/proc/70/fd/3").symlink_to(path)


@pytest.mark.parametrize(
    "below,subsystem,node",
    [
        ("usb1/1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0", "tty", ""),
        ("host0/target0:0:0/0:0:0:0/scsi_tape/st0", "scsi_tape", ""),
        ("iTCO_wdt/watchdog/watchdog0", "watchdog", ""),
        ("ptp/ptp0", "ptp", ""),
        ("drm/card0", "drm", "dri/card0"),
        ("infiniband_verbs/uverbs0", "infiniband_verbs", "infiniband/uverbs0"),
        ("something/of/tomorrow0", "tomorrow", ""),
    ],
)
def test_a_character_device_that_is_open_counts_whatever_it_is(
    nic: Tree, below: str, subsystem: str, node: str
) -> None:
    character(nic, nic.real(NIC) + "/" + below, "188:0", subsystem, node)
    assert guards(nic, NIC) == []
    path = "/dev/" + (node or below.rpartition("/")[2])
    opened(nic, path)
    found = guards(nic, NIC)
    assert kinds(found) == ["device_in_use"] and found[0].evidence == [path + " is open in process 70 (pppd)"]


@pytest.mark.parametrize("below,subsystem", [("vfio-dev/vfio0", "vfio-dev"), ("uio/uio0", "uio")])
def test_what_a_data_plane_has_open_is_not_the_hosts(nic: Tree, below: str, subsystem: str) -> None:
    character(nic, nic.real(NIC) + "/" + below, "511:0", subsystem)
    opened(nic, "/dev/" + below.rpartition("/")[2], "dpdk-testpmd")
    assert guards(nic, NIC) == []


def test_a_device_that_was_taken_is_not_asked(nic: Tree) -> None:
    character(nic, nic.real(NIC) + "/ptp/ptp0", "248:0", "ptp")
    opened(nic, "/dev/ptp0")
    nic.bind(NIC, "vfio-pci")
    assert guards(nic, NIC) == []


def test_an_open_device_of_a_virtual_function_counts_for_the_physical_one(nic: Tree) -> None:
    nic.sriov(NIC, number=1)
    function = nic.vf_address(NIC, 0)
    nic.bind(function, "igbvf")
    character(nic, nic.real(function) + "/ptp/ptp1", "248:1", "ptp")
    opened(nic, "/dev/ptp1", "ptp4l")
    assert guards(nic, NIC)[0].evidence == ["virtual function %s, /dev/ptp1 is open in process 70 (ptp4l)" % function]


def test_the_kernels_console_counts(nic: Tree) -> None:
    nic.file("/sys/class/tty/console/active", "tty0 ttyS4")
    nic.link("/sys/class/tty/ttyS4", nic.real(NIC) + "/tty/ttyS4")
    found = guards(nic, NIC)
    assert kinds(found) == ["console"] and found[0].evidence == ["the kernel's console is ttyS4"]


@pytest.mark.parametrize("firmware", [False, True])
@pytest.mark.parametrize("bound", [False, True])
def test_the_display_with_the_framebuffer_console_counts(nic: Tree, firmware: bool, bound: bool) -> None:
    """Of a framebuffer that the firmware made, only boot_vga tells the display."""
    place = "/sys/devices/platform/efi-framebuffer.0" if firmware else nic.real(NIC)
    nic.link("/sys/class/graphics/fb0", place + "/graphics/fb0")
    nic.file(nic.real(NIC) + "/boot_vga", "%d" % firmware)
    nic.file("/sys/class/vtconsole/vtcon0/name", "(S) dummy device")
    nic.file("/sys/class/vtconsole/vtcon0/bind", "1")
    nic.file("/sys/class/vtconsole/vtcon1/name", "(M) frame buffer device")
    nic.file("/sys/class/vtconsole/vtcon1/bind", "%d" % bound)
    found = guards(nic, NIC)
    said = "vtcon1 is bound: (M) frame buffer device" + ("" if firmware else " on fb0")
    assert [guard.evidence for guard in found] == ([[said]] if bound else [])
