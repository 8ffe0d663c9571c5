# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a grant: what udev, PAM and systemd read."""

from __future__ import annotations

import os

from .._base.fs import Root
from .._base.paths import DROP_IN, GRANTED_MODE, ORIGINALS, UNITS_DIR
from .._host.iommu import GROUPS
from .._policy.granted_nodes import CONTAINER, CONTAINER_MODE

PIN_NODE = "/dev/noiommu"
# udev's program for a node: whether one of its group's devices is a key of the record. udev replaces %%k and $$.
_HAS_OURS = (
    "/bin/sh -c 'group=%%k; for device in %s/$${group##*-}/devices/*; do"
    " [ -e $$device ] && grep -q .$${device##*/}.: %s && exit; done; exit 1'"
) % (GROUPS, ORIGINALS)
HEADER = "# Written by the Ansible module baremetal.noiommu.dataplane_access; your changes would be lost.\n"


def udev_rules(group: str) -> str:
    """Return the rules that give the nodes of our devices to a group.

    IOMMU groups get new numbers at every boot: the record of the devices tells which of them has a device of ours.
    """
    # Final assignments (:=): 91-vfio.rules of Open vSwitch's RPM, read later, gives the same nodes to hugetlbfs.
    to_group = 'GROUP:="%s", MODE:="%04o"' % (group, GRANTED_MODE)
    return HEADER + "".join(
        "%s\n" % rule
        for rule in (
            'SUBSYSTEM=="vfio", KERNEL=="[0-9]*|noiommu-[0-9]*", PROGRAM=="%s", %s' % (_HAS_OURS, to_group),
            'SUBSYSTEM=="misc", KERNEL=="%s", %s' % (os.path.basename(PIN_NODE), to_group),
            'SUBSYSTEM=="misc", KERNEL=="%s", MODE:="%04o"' % (os.path.basename(CONTAINER), CONTAINER_MODE),
        )
    )


def gave_every_group(rules: str | None) -> bool:
    """Whether these rules are of an earlier version, which gave the group every VFIO group of the host."""
    return rules is not None and ORIGINALS not in rules


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
