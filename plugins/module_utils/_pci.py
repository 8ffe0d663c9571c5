# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PCI devices and their network interfaces, read from sysfs without spawning anything."""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

from ._errors import HostError
from ._fs import Root

PCI_DEVICES = "/sys/bus/pci/devices"
_BDF = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$")
_SHORT_BDF = re.compile(r"^[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$")


def normalise_bdf(text: str) -> str:
    """Return the full lower-case BDF (``0000:04:00.0``) for a full or a short one."""
    address = str(text).strip().lower()
    if _SHORT_BDF.match(address):
        address = "0000:" + address
    if not _BDF.match(address):
        raise HostError(
            "selector",
            "%r is not a PCI address." % (text,),
            evidence=["expected domain:bus:device.function in hexadecimal, for example 0000:04:00.0"],
            remedy="Write the address as `lspci -D` or /sys/bus/pci/devices shows it, in quotes.",
        )
    return address


class Interface(NamedTuple):
    """A network interface that sits on a PCI device."""

    name: str
    mac: str | None  # the permanent address where sysfs offers it, else the current one
    ifindex: int | None
    up: bool  # administratively up (IFF_UP)


class PciDevice:
    """One PCI function. Identity is read once; what a binding changes is read anew each time."""

    def __init__(self, root: Root, address: str, interface_names: list[str] | None = None) -> None:
        self._root = root
        self.address = address
        self.path = PCI_DEVICES + "/" + address
        self._interface_names = interface_names or []

    def _hex(self, attribute: str) -> str:
        text = self._root.read_text(self.path, attribute) or ""
        return text[2:] if text.startswith("0x") else text

    # --- identity ---

    @cached_property
    def vendor(self) -> str:
        """Vendor id, four hexadecimal digits."""
        return self._hex("vendor")

    @cached_property
    def device(self) -> str:
        """Device id, four hexadecimal digits."""
        return self._hex("device")

    @property
    def vendor_device(self) -> str:
        """``vendor:device`` as lspci -n shows it."""
        return "%s:%s" % (self.vendor, self.device)

    @cached_property
    def class_code(self) -> str:
        """Class, subclass and programming interface, six hexadecimal digits."""
        return self._hex("class")

    @cached_property
    def numa_node(self) -> int | None:
        """NUMA node, None where the firmware names none."""
        node = self._root.read_int(self.path, "numa_node")
        return None if node is None or node < 0 else node

    @cached_property
    def real(self) -> str:
        """The device's own directory below /sys/devices."""
        return self._root.realpath(self.path)

    @property
    def is_network(self) -> bool:
        """Whether the class is that of a network controller."""
        return self.class_code.startswith("02")

    @cached_property
    def is_endpoint(self) -> bool:
        """False for bridges: their header type is not 0, or their class is 06."""
        config = self._root.read_bytes(self.path, "config")
        header_type = config[0x0E] & 0x7F if config is not None and len(config) > 0x0E else 0
        return header_type == 0 and not self.class_code.startswith("06")

    @cached_property
    def interfaces(self) -> list[Interface]:
        """The interfaces present when the devices were listed."""
        return [read_interface(self._root, name) for name in self._interface_names]

    @property
    def mac(self) -> str | None:
        """The MAC address of the first interface that has one."""
        return next((interface.mac for interface in self.interfaces if interface.mac), None)

    # --- SR-IOV relations ---

    @property
    def physfn(self) -> str | None:
        """The address of the physical function, if this is a virtual one."""
        return self._root.link_name(self.path, "physfn")

    @property
    def virtfns(self) -> list[str]:
        """The addresses of the virtual functions on this physical one."""
        names = [name for name in self._root.listdir(self.path) if name.startswith("virtfn")]
        return sorted(filter(None, (self._root.link_name(self.path, name) for name in names)))

    # --- state ---

    @property
    def present(self) -> bool:
        """Whether the device still exists."""
        return self._root.exists(self.path)

    @property
    def driver(self) -> str | None:
        """The bound driver, if any."""
        return self._root.link_name(self.path, "driver")

    @property
    def driver_override(self) -> str | None:
        """The only driver that may bind, if one is set."""
        text = self._root.read_text(self.path, "driver_override")
        return None if text in (None, "", "(null)") else text

    @property
    def iommu_group(self) -> int | None:
        """Number of the IOMMU group."""
        name = self._root.link_name(self.path, "iommu_group")
        return int(name) if name is not None and name.isdigit() else None

    @property
    def iommu(self) -> str | None:
        """Name of the IOMMU node the device hangs on (``dmar0``, ``noiommu-0000:04:00.0``)."""
        return self._root.link_name(self.path, "iommu")

    def __repr__(self) -> str:
        return "PciDevice(%s)" % self.address


def read_interface(root: Root, name: str) -> Interface:
    """Read one interface of /sys/class/net."""
    base = "/sys/class/net/" + name
    # A bond gives all its members one address; sysfs keeps the member's own here.
    mac = root.read_text(base, "bonding_slave/perm_hwaddr") or root.read_text(base, "address")
    flags = root.read_int(base, "flags") or 0
    return Interface(name, mac.lower() if mac else None, root.read_int(base, "ifindex"), bool(flags & 1))


def nearest_bdf(path: str) -> str | None:
    """Return the PCI address closest to the end of a /sys/devices path."""
    return next((part for part in reversed(path.split("/")) if _BDF.match(part)), None)


class PciBus:
    """One listing of the PCI bus; devices in address order."""

    def __init__(self, root: Root) -> None:
        self.root = root
        owners: dict[str, list[str]] = {}
        for name in root.listdir("/sys/class/net"):
            # virtio and others put the interface on a child device: the nearest PCI function above owns it.
            owner = nearest_bdf(root.realpath("/sys/class/net", name))
            if owner is not None:
                owners.setdefault(owner, []).append(name)
        self.devices: dict[str, PciDevice] = {
            address: PciDevice(root, address, owners.get(address))
            for address in root.listdir(PCI_DEVICES)
            if _BDF.match(address)
        }

    def get(self, address: str) -> PciDevice | None:
        """Return a device by its full address."""
        return self.devices.get(address)

    def __iter__(self):
        return iter(self.devices.values())
