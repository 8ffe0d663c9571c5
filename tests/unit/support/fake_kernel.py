# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A kernel in a temporary directory: reacts to sysfs writes and modprobe as the real one does, fails on demand."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from typing import Callable

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError

from .kernel_requests import PARAMETERS, MachineKernel, MachineRoot, MachineRunner
from .tree import DRIVERS, Tree

UNSAFE_INTERRUPTS = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
NOIOMMU_MODE = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


class Machine:
    """A host under test. ``requests`` is everything that was asked of it to change, in order."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.requests: list[str] = []
        self.fail_at: int | None = None
        self.broken: set[str] = set()  # drivers and modules that fail
        self.without_ids: set[str] = set()  # drivers that take a device only by its override, as those of UIO do
        self.builtin_noiommu = False
        self.needs_link: set[str] = set()  # physical functions that make nothing while their interface is down
        self.uncombined: set[str] = set()  # devices with a BAR that somebody has mapped already
        self._combined: dict[tuple[str, int], bool] = {}  # whether a BAR that was named is write-combined
        self.made: Callable[[str, int], None] = lambda pf, number: None  # called with what sriov_numvfs became
        self.mac_of: Callable[[str], str] = lambda address: ""  # the address that a virtual function was given
        self._native: dict[str, str] = {}  # the driver that knows a device by its number
        self._parked: dict[str, list[tuple]] = {}
        self.root = MachineRoot(self)
        self.runner = MachineRunner(self)
        self.kernel = MachineKernel(self.root, self.runner)
        self.module_index("vfio-pci", "vfio_iommu_type1", "noiommu", "vfio_virqfd")
        tree.dir("/etc/systemd/system/multi-user.target.wants")
        tree.dir("/etc/modprobe.d")
        tree.dir("/etc/udev/rules.d")
        tree.dir("/usr/local/lib")
        tree.dir("/usr/local/sbin")
        tree.dir("/var/lib")
        tree.dir("/sys/module")
        tree.dir("/sys/kernel/iommu_groups")
        tree.dir("/sys/devices/virtual/iommu")
        tree.dir("/sys/class/iommu")
        tree.dir("/dev/vfio")

    def module_index(self, *modules: str) -> None:
        """Say which modules the kernel can load."""
        along = {"vfio-pci": " kernel/drivers/vfio_virqfd.ko.xz"}
        lines = ["kernel/drivers/%s.ko.xz:%s" % (name, along.get(name, "")) for name in modules]
        self.tree.file("/lib/modules/%s/modules.dep" % os.uname().release, "\n".join(lines))

    def request(self, what: str) -> None:
        """Count a request; fail where told to."""
        self.requests.append(what)
        number = len(self.requests)
        if number == self.fail_at:
            raise HostError("injected", "request %d fails: %s" % (number, what), errno=errno.EIO)

    # --- modules ---

    def load(self, module: str) -> None:
        """React to modprobe."""
        tree = self.tree
        if module == "noiommu":
            tree.file(PARAMETERS + "/dpdk_pa_hint", "Y")
            tree.file(PARAMETERS + "/add")
            tree.file(PARAMETERS + "/remove")
            tree.file(PARAMETERS + "/write_combining")
        elif module == "vfio_iommu_type1":
            tree.file(UNSAFE_INTERRUPTS, "N")
        else:
            tree.dir("/sys/module/" + module.replace("-", "_"))
            if module == "vfio-pci":
                tree.driver(module)
                tree.dir("/sys/module/vfio_virqfd")  # comes along, and modprobe -r vfio-pci leaves it
        if module.startswith("vfio") and self.builtin_noiommu and not tree.root.exists(NOIOMMU_MODE):
            tree.file(NOIOMMU_MODE, "N")

    def unload(self, module: str) -> int:
        """React to modprobe -r."""
        bound = [d for d in self.tree.root.listdir("/sys/bus/pci/devices") if self.driver_of(d) == module]
        ours = [node for node in self.tree.root.listdir("/sys/class/iommu") if node.startswith("noiommu-")]
        if bound or (module == "noiommu" and (ours or any(self._combined.values()))):
            return 1
        if module == "noiommu":
            self._combined.clear()
        self.tree.remove("/sys/module/" + module.replace("-", "_"))
        self.tree.remove(DRIVERS + "/" + module)
        return 0

    # --- devices ---

    def driver_of(self, address: str) -> str | None:
        """Return the bound driver."""
        return self.tree.root.link_name("/sys/bus/pci/devices", address, "driver")

    def unbind(self, address: str) -> None:
        """React to a write to unbind: the interfaces go away, VFIO's own groups too."""
        tree, real = self.tree, self.tree.real(address)
        driver = self.driver_of(address)
        if driver is None:
            raise OSError(errno.ENODEV, "No such device")
        if driver != "vfio-pci" and driver not in self.without_ids:
            self._native.setdefault(address, driver)
        if driver == "vfio-pci":
            group = tree.root.link_name(real, "iommu_group")
            noiommu = tree.root.read_text("/sys/kernel/iommu_groups", group, "name") == "vfio-noiommu"
            tree.remove("/dev/vfio/%s%s" % ("noiommu-" if noiommu else "", group))
            if noiommu:
                self._drop_group(address)
        else:
            for name in tree.root.listdir("/sys/class/net"):
                path = tree.root.realpath("/sys/class/net", name)
                if path.startswith(real + "/"):
                    parked = tree.base.parent / ("parked-%s-%s" % (address, name))
                    tree.at(path).rename(parked)
                    tree.at(path).parent.rmdir()
                    tree.remove("/sys/class/net/" + name)
                    self._parked.setdefault(address, []).append((name, path, parked))
        tree.remove(real + "/driver")
        self._list_bars({key: is_on and key[0] != address for key, is_on in self._combined.items()})

    def bind(self, address: str, driver: str) -> None:
        """React to a write to bind."""
        tree, real = self.tree, self.tree.real(address)
        override = tree.root.read_text(real, "driver_override")
        if self.driver_of(address) is not None:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if override not in ("(null)", driver) or (driver in self.without_ids and override != driver):
            raise OSError(errno.ENODEV, "No such device")
        if driver in self.broken:
            raise OSError(errno.EIO, "Input/output error")
        if driver == "vfio-pci":
            self._bind_vfio(address)
        else:
            parked_here = self._parked.pop(address, [])
            for name, path, parked in parked_here:
                tree.at(path).parent.mkdir(parents=True)
                parked.rename(tree.at(path))
                tree.link("/sys/class/net/" + name, path)
                tree.file(path + "/flags", "0x1002")  # a driver brings its interface up administratively down
                if tree.root.exists(real, "physfn"):
                    tree.file(path + "/address", self._vf_mac(address))
            if not parked_here and tree.root.exists(real, "physfn"):
                self._add_interface(address)
        tree.bind(address, driver)

    def _bind_vfio(self, address: str) -> None:
        tree, real = self.tree, self.tree.real(address)
        if not tree.root.exists(real, "iommu_group"):
            if tree.root.read_text(NOIOMMU_MODE) != "Y":
                raise OSError(errno.EINVAL, "Invalid argument")
            tree.group(self._free_group(), address, name="vfio-noiommu", node=None)
        group = tree.root.link_name(real, "iommu_group")
        noiommu = tree.root.read_text("/sys/kernel/iommu_groups", group, "name") == "vfio-noiommu"
        tree.file("/dev/vfio/%s%s" % ("noiommu-" if noiommu else "", group))
        is_free = address not in self.uncombined
        self._list_bars({key: is_on or (key[0] == address and is_free) for key, is_on in self._combined.items()})

    def combine(self, text: str) -> None:
        """React to the noiommu module's write_combining parameter."""
        address, window = text[1:].split()
        key = (address, int(window))
        flags = self.tree.root.read_text(self.tree.real(address), "resource").splitlines()[int(window)].split()[2]
        if self.driver_of(address) is not None:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if not int(flags, 16) & 0x2000:
            raise OSError(errno.EINVAL, "Invalid argument")
        if (text[0] == "+") == (key in self._combined):
            raise OSError(errno.EEXIST if text[0] == "+" else errno.ENODEV, "named, or not")
        named = {**self._combined, key: False}
        if text[0] == "-":
            del named[key]
        self._list_bars(named)

    def _list_bars(self, combined: dict[tuple[str, int], bool]) -> None:
        if combined != self._combined:
            self._combined = combined
            lines = ["%s %d %s" % (*key, "on" if is_on else "off") for key, is_on in combined.items()]
            self.tree.file(PARAMETERS + "/write_combining", "\n".join(lines))

    def _free_group(self) -> int:
        taken = {int(name) for name in self.tree.root.listdir("/sys/kernel/iommu_groups")}
        return next(number for number in itertools.count() if number not in taken)

    def _drop_group(self, address: str) -> None:
        tree, real = self.tree, self.tree.real(address)
        tree.remove("/sys/kernel/iommu_groups/" + tree.root.link_name(real, "iommu_group"))
        tree.remove(real + "/iommu_group")
        tree.remove(real + "/iommu")

    def functions(self, pf: str, number: int) -> None:
        """React to a write to sriov_numvfs: virtual functions come, with a driver if those may probe, or go."""
        tree, real = self.tree, self.tree.real(pf)
        present = tree.root.read_int(real, "sriov_numvfs")
        if "sriov" in self.broken:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        if present and number:
            raise OSError(errno.EBUSY, "Device or resource busy")
        for index in range(present):
            address = tree.vf_address(pf, index)
            if self.driver_of(address) is not None:
                self.unbind(address)
            for _name, _path, parked in self._parked.pop(address, []):
                shutil.rmtree(parked)
            self._native.pop(address, None)
            if tree.root.exists("/sys/class/iommu/noiommu-" + address):
                self.drop(address)
            tree.remove("%s/virtfn%d" % (real, index))
            tree.remove(tree.real(address))
            tree.remove("/sys/bus/pci/devices/" + address)
        names = tree.root.listdir(real, "net")
        if pf in self.needs_link and not all(tree.root.read_int(real, "net", name, "flags") & 1 for name in names):
            number = 0  # and no error
        self.made(pf, number)
        for index in range(number):
            tree.vf(pf, index)
            if tree.root.read_text(real, "sriov_drivers_autoprobe") == "1":
                self.probe(tree.vf_address(pf, index))
        tree.file(real + "/sriov_numvfs", str(number))

    def probe(self, address: str) -> None:
        """Offer a device to its driver; a new virtual function gets an interface from it."""
        if self.driver_of(address) is not None:
            return
        if address in self._native:
            if self._native[address] not in self.broken:
                self.bind(address, self._native[address])
        elif self.tree.root.exists(self.tree.real(address), "physfn"):
            self._add_interface(address)
            self.tree.bind(address, "igbvf")

    def _add_interface(self, address: str) -> None:
        number = _number(address)
        self.tree.net("vf%d" % number, address, self._vf_mac(address))
        self.tree.file("/sys/class/net/vf%d/ifindex" % number, str(1000 + number))

    def _vf_mac(self, address: str) -> str:
        return self.mac_of(address) or "02:00:00:00:00:%02x" % _number(address)

    def add(self, address: str) -> None:
        """React to the noiommu module's add parameter."""
        tree = self.tree
        if not tree.root.exists("/sys/bus/pci/devices", address):
            raise OSError(errno.ENODEV, "No such device")
        if self.driver_of(address) is not None:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if tree.root.exists(tree.real(address), "iommu_group"):
            raise OSError(errno.EEXIST, "File exists")
        node = "noiommu-" + address
        tree.group(self._free_group(), address, name="noiommu", node=node)
        if tree.root.read_text(PARAMETERS, "dpdk_pa_hint") == "Y":
            tree.file("/sys/devices/virtual/iommu/%s/intel-iommu/cap" % node, "noiommu")

    def drop(self, address: str) -> None:
        """React to the noiommu module's remove parameter."""
        if self.driver_of(address) is not None:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self._drop_group(address)
        self.tree.remove("/sys/devices/virtual/iommu/noiommu-" + address)
        self.tree.remove("/sys/class/iommu/noiommu-" + address)


def _number(address: str) -> int:
    """Return what tells the virtual functions of a card apart."""
    return int(address[-1]) + 8 * int(address[-4:-2], 16)
