# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IOMMU groups, the state of the host's IOMMU, and what protection a device really has."""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .pci import PciBus, PciDevice

GROUPS = "/sys/kernel/iommu_groups"
NODES = "/sys/class/iommu"
VFIO_DIR = "/dev/vfio"
OUR_PREFIX = "noiommu-"
# Groups with these names protect nothing: the first is our module's, the second that of VFIO's own no-IOMMU mode.
UNSAFE_GROUP_NAMES = ("noiommu", "vfio-noiommu")

# The name of a mediated device: a UUID.
_MEDIATED = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_CHARDEV = re.compile(r"^(noiommu-)?\d+$")

# Drivers that VFIO tolerates beside a device in the same group.
_HARMLESS_IN_GROUP = ("vfio-pci", "pci-stub")

ISOLATED, UNSAFE, NONE = "isolated", "unsafe", "none"

# Only Intel's needs a boot parameter on some kernels; the others are on wherever the kernel has the driver.
_ENABLE = {
    "DMAR": "intel_iommu=on",
    "IVRS": "a kernel with CONFIG_AMD_IOMMU",
    "VIOT": "a kernel with CONFIG_VIRTIO_IOMMU",
    "IORT": "a kernel with CONFIG_ARM_SMMU and CONFIG_ARM_SMMU_V3",
}
_SWITCHES_OFF = ("iommu=off", "intel_iommu=off", "amd_iommu=off")


class Safety(NamedTuple):
    """How well the rest of the host is protected from a device that userspace drives."""

    level: str  # isolated | unsafe | none
    reason: str


class Group(NamedTuple):
    """One IOMMU group."""

    number: int
    name: str | None
    domain_type: str | None
    devices: list[str]

    @property
    def hardware(self) -> bool:
        """Whether a real IOMMU made this group."""
        return self.name not in UNSAFE_GROUP_NAMES

    @property
    def chardev(self) -> str:
        """The character device VFIO gives this group."""
        return _chardev(self.number, None if self.emulated else self.name)

    @property
    def emulated(self) -> bool:
        """Whether it is of mediated devices (vGPUs), which their drivers confine; its name says so since Linux 5.16."""
        return bool(self.devices) and all(_MEDIATED.match(name) for name in self.devices)


class HostIommu(NamedTuple):
    """The state of the host's hardware IOMMU."""

    state: str  # active | firmware_off | absent
    drivers: list[str]
    firmware_tables: list[str]
    enable_with: str | None  # how to turn on one that is described but inactive
    disabled_by: list[str]  # boot parameters that keep it off


def read_groups(root: Root) -> dict[int, Group]:
    """Return every IOMMU group by number."""
    groups = {}
    for entry in sorted((name for name in root.listdir(GROUPS) if name.isdigit()), key=int):
        groups[int(entry)] = read_group(root, int(entry))
    return groups


def group_alone(root: Root, number: int) -> Group:
    """Read one group without its devices."""
    return Group(number, root.read_text(GROUPS, str(number), "name"), None, [])


def read_group(root: Root, number: int) -> Group:
    """Read one group."""
    base = "%s/%d" % (GROUPS, number)
    return Group(number, root.read_text(base, "name"), root.read_text(base, "type"), root.listdir(base, "devices"))


def chardev_of(root: Root, number: int | None) -> str | None:
    """Return the character device of a group by its number alone."""
    return None if number is None else _chardev(number, root.read_text(GROUPS, str(number), "name"))


def _chardev(number: int, name: str | None) -> str:
    return "%s/%s%d" % (VFIO_DIR, "noiommu-" if name == "vfio-noiommu" else "", number)


def chardevs(root: Root) -> list[str]:
    """Return the character devices of groups that exist; /dev/vfio/vfio gives no access by itself and is not one."""
    return ["%s/%s" % (VFIO_DIR, name) for name in root.listdir(VFIO_DIR) if _CHARDEV.match(name)]


def host_iommu(root: Root) -> HostIommu:
    """Say whether a hardware IOMMU works, is described by the firmware but off, or does not exist.

    A node or a group of any other kind than no-IOMMU proves a working one.
    """
    drivers = [node for node in root.listdir(NODES) if not node.startswith(OUR_PREFIX)]
    tables = _firmware_tables(root)
    if drivers or any(group.hardware for group in read_groups(root).values()):
        return HostIommu("active", drivers, tables, None, [])
    if tables:
        words = (root.read_text("/proc/cmdline") or "").split()
        return HostIommu("firmware_off", [], tables, _ENABLE[tables[0]], [w for w in words if w in _SWITCHES_OFF])
    return HostIommu("absent", [], [], None, [])


def _firmware_tables(root: Root) -> list[str]:
    base = "/sys/firmware/acpi/tables"
    present = root.listdir(base)
    found: list[str] = [name for name in ("DMAR", "IVRS", "VIOT") if name in present]
    # IORT exists on every arm64 server for its interrupt routing; only an SMMU node in it is an IOMMU.
    if "IORT" in present and _iort_has_smmu(root.read_bytes(base, "IORT") or b""):
        found.append("IORT")
    return found


def _iort_has_smmu(table: bytes) -> bool:
    if len(table) < 44:
        return False
    count, offset = struct.unpack_from("<II", table, 36)
    for _node in range(count):
        if offset + 3 > len(table):
            return False
        kind, length = struct.unpack_from("<BH", table, offset)
        if kind in (3, 4):  # SMMUv1/v2, SMMUv3
            return True
        if length == 0:
            return False
        offset += length
    return False


def unsafe_interrupts(root: Root) -> bool:
    """Whether VFIO was allowed to work without interrupt remapping."""
    return root.read_text("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts") == "Y"


def classify(root: Root, device: PciDevice, group: Group | None) -> Safety:
    """Say what confines a device's DMA, from sysfs alone."""
    node = device.iommu
    if group is None:
        return Safety(NONE, "no IOMMU group: VFIO cannot hand this device out")
    if group.name == "noiommu" or (node or "").startswith(OUR_PREFIX):
        return Safety(UNSAFE, "the noiommu module made its group: the device can read and write all memory")
    if group.name == "vfio-noiommu":
        return Safety(UNSAFE, "VFIO's no-IOMMU mode made its group: the device can read and write all memory")
    reason = "hardware IOMMU%s confines its DMA" % (" " + node if node else "")
    if unsafe_interrupts(root):
        reason += ", but vfio_iommu_type1.allow_unsafe_interrupts=Y lets it forge interrupts"
    return Safety(ISOLATED, reason)


def group_report(root: Root, bus: PciBus) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (groups, devices) as iommu_group_info reports them."""
    groups = read_groups(root)
    devices = []
    for device in bus:
        group = groups.get(device.iommu_group) if device.iommu_group is not None else None
        safety = classify(root, device, group)
        chardev = group.chardev if group is not None and root.exists(group.chardev) else None
        devices.append(
            {
                "address": device.address,
                "group": group.number if group else None,
                "group_name": group.name if group else None,
                "domain_type": group.domain_type if group else None,
                "driver": device.driver,
                "iommu": device.iommu,
                "chardev": chardev,
                "safety": safety.level,
                "reason": safety.reason,
            }
        )
    by_group: dict[Any, list[dict[str, Any]]] = {}
    for entry in devices:
        by_group.setdefault(entry["group"], []).append(entry)
    reported = [
        {
            "group": group.number,
            "name": group.name,
            "domain_type": group.domain_type,
            "devices": group.devices,
            "chardev": group.chardev if root.exists(group.chardev) else None,
            "safety": UNSAFE if not group.hardware else ISOLATED,
            "drivers": sorted({entry["driver"] for entry in by_group.get(group.number, []) if entry["driver"]}),
        }
        for group in groups.values()
    ]
    return reported, devices


def group_refusals(root: Root, bus: PciBus, devices: list[PciDevice], listed: set[str]) -> list[HostError]:
    """Say why the hardware groups of these devices cannot be used, provided all listed addresses are bound."""
    if host_iommu(root).state == "firmware_off":
        return []  # its groups appear after the reboot that turns it on
    refusals = []
    for device in devices:
        if device.iommu_group is not None:
            refusals += _direct_region(root, device, device.iommu_group)
        if device.iommu_group is None:
            refusals.append(
                HostError(
                    "group_not_viable",
                    "The hardware IOMMU of this host does not cover %s." % device.address,
                    evidence=["%s/iommu_group: absent" % device.path],
                    remedy="Use another slot or device; insecure mode is refused on a host with a working IOMMU.",
                )
            )
            continue
        others = [bus.get(address) for address in read_group(root, device.iommu_group).devices]
        hosted = [
            "%s is in group %d and bound to %s" % (other.address, device.iommu_group, other.driver)
            for other in others
            # VFIO accepts bridges, unbound members, and members that are bound as well.
            if other is not None
            and other.is_endpoint
            and other.address not in listed
            and other.driver is not None
            and other.driver not in _HARMLESS_IN_GROUP
        ]
        if hosted:
            refusals.append(
                HostError(
                    "group_not_viable",
                    "%s shares its IOMMU group with devices that the host drives." % device.address,
                    evidence=hosted,
                    remedy="List those devices as well, or use a slot whose group is its own.",
                )
            )
    return refusals


def _direct_region(root: Root, device: PciDevice, number: int) -> list[HostError]:
    """VFIO answers EINVAL where the firmware itself keeps memory mapped for a device (an RMRR)."""
    path = "%s/%d/reserved_regions" % (GROUPS, number)
    # direct-relaxable is for displays and USB, and harmless.
    regions = [line for line in root.must_read(path).splitlines() if line.split()[-1:] == ["direct"]]
    if not regions:
        return []
    return [
        HostError(
            "group_not_viable",
            "The firmware of this server keeps memory mapped for %s, so VFIO refuses its group." % device.address,
            evidence=["%s: %s" % (path, line) for line in regions],
            remedy="Turn that off for its slot in the firmware setup (HPE: conrep or hprcu, RMRDS; others: shared"
            " memory or health reporting of option cards), or use another slot or device.",
        )
    ]
