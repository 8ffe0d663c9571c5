# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a grant: what udev, PAM and systemd read."""

from __future__ import annotations

import os

from .._base.fs import Root
from .._base.paths import DROP_IN, GRANTED_MODE, UNITS_DIR

PIN_NODE = "/dev/noiommu"
HEADER = "# Written by the Ansible module baremetal.noiommu.dataplane_access; your changes would be lost.\n"


def udev_rules(group: str) -> str:
    """Return the rules that give the device nodes to a group."""
    # Final assignments: 91-vfio.rules of Open vSwitch's RPM, read later, gives the same nodes to hugetlbfs.
    rule = 'SUBSYSTEM=="%s", KERNEL=="%s", GROUP:="%s", MODE:="%04o"\n'
    return (
        HEADER
        + rule % ("vfio", "[0-9]*|noiommu-[0-9]*", group, GRANTED_MODE)
        + rule % ("misc", os.path.basename(PIN_NODE), group, GRANTED_MODE)
    )


def limits(group: str, memlock: str) -> str:
    """Return the limit on locked memory: VFIO pins what a device may reach, and counts it."""
    value = memlock if memlock == "unlimited" else str(max(1, int(memlock) // 1024))
    return HEADER + "".join("@%s %s memlock %s\n" % (group, kind, value) for kind in ("soft", "hard"))


def service_drop_ins(root: Root) -> list[str]:
    """Return the drop-ins of ours that services have."""
    paths = ("%s/%s/%s" % (UNITS_DIR, name, DROP_IN) for name in root.listdir(UNITS_DIR) if name.endswith(".service.d"))
    return [path for path in paths if _is_ours(root, path)]


def _is_ours(root: Root, path: str) -> bool:
    return (root.read_bytes(path) or b"").startswith(HEADER.encode())
