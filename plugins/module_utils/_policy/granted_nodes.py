# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which device nodes the declared group may use: only those of the devices that this collection bound.

A host with an IOMMU may have more VFIO groups, such as the graphics card of a virtual machine.
"""

from __future__ import annotations

from .._base.fs import Root
from .._base.paths import ORIGINALS
from .._base.records import load_json
from .._host.iommu import chardev_of, chardevs
from .._host.pci import PciDevice

CONTAINER = "/dev/vfio/vfio"
# The kernel's default mode. The node alone gives no access: its users need a group's node as well.
CONTAINER_MODE = 0o666


def granted_nodes(root: Root) -> list[str]:
    """Return the nodes of the groups with a device that this collection bound."""
    ours = (load_json(root, ORIGINALS) or {}).get("devices", ())
    found = {chardev_of(root, PciDevice(root, address).iommu_group) for address in ours}
    return [path for path in chardevs(root) if path in found]


def can_use_container(mode: int, gid: int, group: int | None) -> bool:
    """Whether members of a group can open /dev/vfio/vfio, which they need besides their devices' nodes."""
    return mode & 0o006 == 0o006 or (gid == group and mode & 0o060 == 0o060)
