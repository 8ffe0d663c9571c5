# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PCI devices and their network interfaces, read from sysfs without spawning anything."""

from __future__ import annotations

import array
import fcntl
import re
import socket
import struct
from functools import cached_property
from typing import Iterable, Iterator, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root

NET = "/sys/class/net"
PCI_DEVICES = "/sys/bus/pci/devices"
_BDF = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$")
_SHORT_BDF = re.compile(r"^[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$")
SLOTS = "/sys/bus/pci/slots"
_USB_BUS = re.compile(r"^usb\d+$")
_VIRTFN = re.compile(r"^virtfn(\d+)$")
# addr_assign_type of an address that came with the card. The others: random, stolen, set.
_PERMANENT = 0
# An address of IP over InfiniBand (20 bytes) and the GUID in it (8), as text.
_IPOIB_LENGTH, _GUID_LENGTH = 3 * 20 - 1, 3 * 8 - 1
_SIOCETHTOOL, _ETHTOOL_GPERMADDR, _MAX_ADDRESS = 0x8946, 0x20, 32
_SERIAL_NUMBER_CAPABILITY = 0x0003
_CONFIG_SIZE = 4096
_NO_IOMMU = "no_iommu"


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


def normalise_serial(text: str) -> str:
    """Return a serial number as it is compared: programs separate its digits by different characters."""
    return re.sub("[-: ]", "", text).lower()


def normalise_serials(texts: Iterable[str]) -> set[str]:
    """Return several serial numbers as they are compared."""
    return set(map(normalise_serial, texts))


class Interface(NamedTuple):
    """A network interface that sits on a PCI device."""

    name: str
    mac: str | None  # the current address; for a bond's member, its own
    ifindex: int | None
    up: bool  # administratively up (IFF_UP)
    mtu: int | None = None
    permanent: str | None = None  # the address (InfiniBand: GUID) that it will have at the next boot, if that is known


class PciDevice:
    """One PCI function. Its identity is read once; whatever a binding changes is read anew each time.

    ``planned``: a virtual function that is still to be made, as (address of the physical one, index).
    """

    def __init__(
        self,
        root: Root,
        address: str,
        interface_names: list[str] | None = None,
        planned: tuple[str, int] | None = None,
    ) -> None:
        self._root = root
        self.planned = planned
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
    def subsystem(self) -> str:
        """Subsystem ``vendor:device``: who built the card around the chip."""
        return "%s:%s" % (self._hex("subsystem_vendor"), self._hex("subsystem_device"))

    @cached_property
    def serials(self) -> list[str]:
        """Serial numbers: PCI Express's own, and an NVMe controller's as long as its driver shows it."""
        found = [_device_serial_number(self._root, self.path)]
        found += [
            self._root.read_text(self.path, "nvme", name, "serial") for name in self._root.listdir(self.path, "nvme")
        ]
        return [serial for serial in found if serial]

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
        return self._root.target(self.path)

    @property
    def is_network(self) -> bool:
        """Whether the class is that of a network controller."""
        return self.class_code.startswith("02")

    @cached_property
    def is_endpoint(self) -> bool:
        """False for bridges: their header type is not 0, or their class is 06."""
        header_type = self._root.read_at(self.path + "/config", 0x0E, 1) or b"\0"
        return header_type[0] & 0x7F == 0 and not self.class_code.startswith("06")

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
        return self.planned[0] if self.planned else self._root.link_name(self.path, "physfn")

    @property
    def functions(self) -> dict[int, str]:
        """The addresses of the virtual functions on this physical one, by index."""
        found: dict[int, str] = {}
        if not self._root.exists(self.path, "virtfn0"):
            return found
        for name in self._root.listdir(self.path):
            match = _VIRTFN.match(name)
            address = self._root.link_name(self.path, name) if match else None
            if match and address:
                found[int(match.group(1))] = address
        return found

    @property
    def virtfns(self) -> list[str]:
        """The addresses of the virtual functions on this physical one."""
        return sorted(self.functions.values())

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
        """Name of the IOMMU node the device hangs on (``dmar0``, ``noiommu-0000:04:00.0``).

        None also where the noiommu module's link tells DPDK that there is none (docs/kernel.md, "The hint for DPDK").
        """
        name = self._root.link_name(self.path, "iommu")
        return name if name != _NO_IOMMU else None

    def __repr__(self) -> str:
        return "PciDevice(%s)" % self.address


def read_interface(root: Root, name: str) -> Interface:
    """Read one interface of /sys/class/net."""
    base = NET + "/" + name
    # A bond gives all its members one address; sysfs keeps the member's own here.
    own = root.read_text(base, "bonding_slave/perm_hwaddr")
    mac = (own or root.read_text(base, "address") or "").lower() or None
    assigned = root.read_int(base, "addr_assign_type") or _PERMANENT
    permanent = mac if assigned == _PERMANENT else _permanent_address(root, name)
    if permanent is not None and len(permanent) == _IPOIB_LENGTH:
        # What comes before the port's GUID depends on the queue pair and on the subnet manager.
        permanent = permanent[-_GUID_LENGTH:]
    flags = root.read_int(base, "flags") or 0
    index, mtu = root.read_int(base, "ifindex"), root.read_int(base, "mtu")
    return Interface(name, mac, index, bool(flags & 1), mtu, permanent)


def _permanent_address(root: Root, name: str) -> str | None:
    """Ask the driver for the address that the card came with; None for one that is random or was set."""
    if not root.is_live:
        return None
    answer = array.array("B", struct.pack("=II%dx" % _MAX_ADDRESS, _ETHTOOL_GPERMADDR, _MAX_ADDRESS))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), answer.buffer_info()[0]))
    except OSError:
        return None
    found = answer[8 : 8 + struct.unpack_from("=I", answer, 4)[0]]
    return ":".join("%02x" % byte for byte in found) if any(found) else None


def _device_serial_number(root: Root, path: str) -> str | None:
    """Walk the extended capabilities for the Device Serial Number; written as lspci does."""
    # Only what is needed is read: each word of configuration space costs a bus transaction.
    offset = 0x100
    for _capability in range((_CONFIG_SIZE - 0x100) // 8):
        header = root.read_at(path + "/config", offset, 12) or b""
        if len(header) < 12:
            return None
        word, low, high = struct.unpack("<III", header)
        if word in (0, 0xFFFFFFFF):
            return None
        if word & 0xFFFF == _SERIAL_NUMBER_CAPABILITY:
            return "-".join("%02x" % byte for byte in struct.pack(">II", high, low))
        offset = word >> 20
        if offset < 0x100:
            return None
    return None


def nearest_bdf(path: str) -> str | None:
    """Return the address of the PCI function that a network interface belongs to, by its /sys/devices path."""
    # The last part is the interface's name, which may be usb0 whatever its device is.
    for part in reversed(path.split("/")[:-1]):
        if _BDF.match(part):
            return part
        if _USB_BUS.match(part):  # the function above is a USB host controller, which may have other devices
            return None
    return None


def below(paths: dict[str, str]) -> dict[str, list[str]]:
    """Return the names on or below each directory of /sys/devices that has any; ``paths``: each name's directory."""
    found: dict[str, list[str]] = {}
    for name, path in paths.items():
        here = path
        while here.count("/") > 2:  # up to /sys/devices
            found.setdefault(here, []).append(name)
            here = here.rpartition("/")[0]
    return found


class PciBus:
    """One listing of the PCI bus; devices in address order."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._planned: dict[str, dict[int, PciDevice]] = {}
        owners: dict[str, list[str]] = {}
        for name in root.listdir(NET):
            # virtio and others put the interface on a child device: the nearest PCI function above owns it.
            owner = nearest_bdf(root.target(NET, name))
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

    def __iter__(self) -> Iterator[PciDevice]:
        return iter(self.devices.values())

    @cached_property
    def slots(self) -> dict[str, str]:
        """Physical slots by name, each with the address of what is in it, function left out (``0000:04:00``)."""
        names = self.root.listdir(SLOTS)
        return {name: address for name in names for address in [self.root.read_text(SLOTS, name, "address")] if address}

    def slot_of(self, device: PciDevice) -> str | None:
        """Return the physical slot that a function sits in itself."""
        place = device.address.rpartition(".")[0]
        return next((name for name, address in self.slots.items() if address == place), None)

    def functions(self, pf: PciDevice) -> dict[int, PciDevice]:
        """Return a physical function's virtual ones by index; planned ones replace the present ones."""
        if pf.address in self._planned:
            return self._planned[pf.address]
        found = ((index, self.get(address)) for index, address in pf.functions.items())
        return {index: device for index, device in found if device is not None}

    def plan_functions(self, pf: PciDevice, functions: dict[int, PciDevice]) -> None:
        """Show the bus as it will be, with these virtual functions in place of the present ones."""
        for address in pf.functions.values():
            self.devices.pop(address, None)
        self._planned[pf.address] = functions
        self.devices.update({device.address: device for device in functions.values()})
        self.devices = dict(sorted(self.devices.items()))
