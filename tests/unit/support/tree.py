# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds a host's /sys, /proc, /dev and the rest in a temporary directory, shaped as the kernel shapes them."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root

PCI_ROOT = "/sys/devices/pci0000:00"
DRIVERS = "/sys/bus/pci/drivers"


class Tree:
    """Every method takes host paths such as /sys/class/net."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = Root(str(base))
        self._ifindex = 1

    # --- primitives ---

    def at(self, path: str) -> Path:
        """Return where a host path is, without resolving links on the way."""
        return self.base / path.lstrip("/")

    def file(self, path: str, text: str | bytes = "") -> None:
        """Write a file; text gets the newline that sysfs ends everything with."""
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            self.at(path).write_bytes(text)
        else:
            self.at(path).write_text(text + "\n" if text else "")

    def dir(self, path: str) -> None:
        """Make a directory."""
        self.at(path).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        """Link a host path to another one, relatively, as sysfs does."""
        here = self.at(path)
        here.parent.mkdir(parents=True, exist_ok=True)
        if here.is_symlink():
            here.unlink()
        here.symlink_to(os.path.relpath(self.at(target), os.path.realpath(here.parent)))

    def remove(self, path: str) -> None:
        """Remove a file, link or directory with its content, if there."""
        here = self.at(path)
        if here.is_symlink() or here.is_file():
            here.unlink()
        elif here.is_dir():
            shutil.rmtree(here)

    def content(self, prefix: str = "/") -> dict[str, str]:
        """Return everything below a path: files with text, links with target, directories."""
        found = {}
        for folder, dirs, files in os.walk(self.at(prefix)):
            for name in dirs + files:
                full = os.path.join(folder, name)
                shown = "/" + os.path.relpath(full, self.base)
                if os.path.islink(full):
                    found[shown] = "-> " + os.readlink(full)
                elif os.path.isdir(full):
                    found[shown] = "dir"
                else:
                    found[shown] = Path(full).read_bytes().decode("utf-8", "replace")
        return found

    # --- PCI ---

    def driver(self, name: str) -> None:
        """Register a PCI driver."""
        self.dir(DRIVERS + "/" + name)

    def pci(
        self,
        address: str,
        vendor_device: str = "8086:10d3",
        class_code: str = "020000",
        driver: str | None = None,
        *,
        below: str = PCI_ROOT,
        header_type: int = 0,
        numa_node: int = -1,
    ) -> str:
        """Add a PCI function and return its directory."""
        real = "%s/%s" % (below, address)
        vendor, device = vendor_device.split(":")
        for name, text in (
            ("vendor", "0x" + vendor),
            ("device", "0x" + device),
            ("class", "0x" + class_code),
            ("driver_override", "(null)"),
            ("numa_node", str(numa_node)),
            ("config", bytes(14) + bytes([header_type]) + bytes(49)),
        ):
            self.file("%s/%s" % (real, name), text)
        self.link("/sys/bus/pci/devices/" + address, real)
        if driver:
            self.bind(address, driver)
        return real

    def bind(self, address: str, driver: str) -> None:
        """Bind a function to a driver."""
        self.driver(driver)
        self.link("/sys/bus/pci/devices/%s/driver" % address, DRIVERS + "/" + driver)

    def real(self, address: str) -> str:
        """Return a function's directory below /sys/devices."""
        return self.root.realpath("/sys/bus/pci/devices", address)

    def sriov(self, pf: str, total: int = 8, number: int = 0) -> None:
        """Let a function have virtual ones, as an igb has them."""
        real = self.real(pf)
        for name, text in (
            ("sriov_totalvfs", total),
            ("sriov_numvfs", number),
            ("sriov_offset", 128),
            ("sriov_stride", 2),
            ("sriov_vf_device", "10ca"),
            ("sriov_drivers_autoprobe", 1),
        ):
            self.file("%s/%s" % (real, name), str(text))
        for index in range(number):
            self.vf(pf, index)

    @staticmethod
    def vf_address(pf: str, index: int) -> str:
        """Return where a virtual function appears, with that offset and stride."""
        return "%s%02x.%d" % (pf[:8], 16 + (2 * index >> 3), 2 * index & 7)

    def vf(self, pf: str, index: int) -> str:
        """Add a virtual function, without a driver."""
        address = self.vf_address(pf, index)
        self.pci(address, "8086:10ca")
        self.link("%s/virtfn%d" % (self.real(pf), index), self.real(address))
        self.link(self.real(address) + "/physfn", self.real(pf))
        return address

    def config(self, address: str, serial: str) -> None:
        """Give a function a configuration space with a serial number behind another capability."""
        head = self.root.read_bytes(self.real(address), "config")
        words = struct.pack("<III", 0x14010001, 0, 0).ljust(0x40, b"\0") + struct.pack("<I", 0x00010003)
        self.file(
            self.real(address) + "/config",
            head.ljust(0x100, b"\0") + words + bytes.fromhex(serial.replace("-", ""))[::-1],
        )

    def bars(self, address: str, bars: dict[int, tuple[int, str]]) -> None:
        """Give a function BARs by number, each with its size and kind: io, mem, or pref (64 for one of 64 bits)."""
        flags = {"io": 0x40101, "mem": 0x40200, "pref": 0x42208, "pref64": 0x14220C, "unset": 0x20042208}
        lines = ["0x%016x 0x%016x 0x%016x" % (0, 0, 0)] * 13
        for number, (size, kind) in bars.items():
            start = 0 if kind == "unset" else 0xFE000000 + number * 0x100000
            lines[number] = "0x%016x 0x%016x 0x%016x" % (start, start + size - 1, flags[kind])
        self.file(self.real(address) + "/resource", "\n".join(lines))

    def capabilities(self, address: str, *capabilities: bytes) -> None:
        """Give a function's configuration space a list of capabilities; each without its link to the next."""
        config = bytearray(self.root.read_bytes(self.real(address), "config").ljust(0x100, b"\0"))
        config[0x06] |= 0x10
        link, offset = 0x34, 0x40
        for capability in capabilities:
            config[link] = offset
            config[offset : offset + len(capability) + 1] = capability[:1] + b"\0" + capability[1:]
            link, offset = offset + 1, offset + (len(capability) + 4 & ~3)
        self.file(self.real(address) + "/config", bytes(config))

    # --- network ---

    def net(
        self,
        name: str,
        address: str | None = None,
        mac: str = "52:54:00:00:00:01",
        *,
        up: bool = False,
        child: str = "",
    ) -> int:
        """Add an interface to a PCI function (``child``: virtio0 and the like) or a virtual one; return its ifindex."""
        parent = "/sys/devices/virtual" if address is None else self.real(address) + ("/" + child if child else "")
        real = "%s/net/%s" % (parent, name)
        self._ifindex += 1
        self.file(real + "/address", mac)
        self.file(real + "/ifindex", str(self._ifindex))
        self.file(real + "/flags", "0x1003" if up else "0x1002")
        self.file(real + "/mtu", "1500")
        self.link("/sys/class/net/" + name, real)
        if address is not None:
            self.link(real + "/device", parent)
        return self._ifindex

    def stack(self, upper: str, *lowers: str, master: bool = False) -> None:
        """Put an interface on top of others (``master``: as bonds and bridges do)."""
        net = "/sys/class/net/"
        for lower in lowers:
            upper_real, lower_real = self.root.realpath(net + upper), self.root.realpath(net + lower)
            self.link("%s/upper_%s" % (lower_real, upper), upper_real)
            self.link("%s/lower_%s" % (upper_real, lower), lower_real)
            if master:
                self.link(lower_real + "/master", upper_real)

    # --- storage ---

    def block(self, name: str, parent: str, numbers: str) -> str:
        """Add a block device below a /sys/devices directory (a disk's directory for a partition)."""
        real = "%s/%s" % (parent, name)
        self.file(real + "/dev", numbers)
        self.dir(real + "/holders")
        self.link("/sys/class/block/" + name, real)
        return real

    def hold(self, holder: str, numbers: str, *held: str) -> str:
        """Add a stacked device (dm-0, md0) that holds others."""
        real = self.block(holder, "/sys/devices/virtual/block", numbers)
        for name in held:
            self.link("%s/holders/%s" % (self.root.realpath("/sys/class/block", name), holder), real)
        return real

    def mounts(self, *lines: tuple[str, str, str]) -> None:
        """Write process 1's mountinfo from (major:minor, target, source)."""
        text = "\n".join("22 1 %s / %s rw,relatime shared:1 - ext4 %s rw" % line for line in lines)
        self.file("/proc/1/mountinfo", text)

    # --- IOMMU ---

    def group(self, number: int, *addresses: str, name: str | None = None, node: str | None = "dmar0") -> None:
        """Add an IOMMU group; without a name it is a hardware IOMMU's."""
        base = "/sys/kernel/iommu_groups/%d" % number
        self.dir(base + "/devices")
        self.file(base + "/type", "identity" if name else "DMA")
        if name:
            self.file(base + "/name", name)
        if node:
            self.dir("/sys/devices/virtual/iommu/" + node)
            self.link("/sys/class/iommu/" + node, "/sys/devices/virtual/iommu/" + node)
        for address in addresses:
            self.link("%s/devices/%s" % (base, address), self.real(address))
            self.link(self.real(address) + "/iommu_group", base)
            if node:
                self.link(self.real(address) + "/iommu", "/sys/devices/virtual/iommu/" + node)
