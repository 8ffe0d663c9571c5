# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Persistent names below /dev/vfio: the kernel gives its groups new numbers at every boot."""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterator

from .._base.fs import Root
from .._host.iommu import VFIO_DIR, chardev_of
from .._host.pci import PciDevice
from .identity import macs_of
from .originals import Originals

BASE = VFIO_DIR
KINDS = ("by-address", "by-mac", "by-serial", "by-slot")


def names(address: str, record: dict[str, Any]) -> Iterator[str]:
    """Yield a device's names below /dev/vfio."""
    function = address.rpartition(".")[2]
    yield "by-address/" + address
    for mac in macs_of(record["interfaces"]):
        yield "by-mac/" + mac
    # All functions of a card may have the same serial number.
    for serial in record.get("serials", ()):
        yield "by-serial/%s.%s" % (serial.replace("/", "-"), function)
    if "slot" in record:
        yield "by-slot/%s.%s" % (record["slot"].replace("/", "-"), function)
    for mac in record.get("vf", {}).get("macs", ()):
        yield "by-mac/%s-vf%d" % (mac, record["vf"]["index"])


def wanted(root: Root, originals: Originals) -> dict[str, str]:
    """Return every name of the bound devices and its target, as the devices are now."""
    links: dict[str, str] = {}
    count: Counter[str] = Counter()
    for address, record in originals.devices.items():
        chardev = chardev_of(root, PciDevice(root, address).iommu_group)
        if chardev is None or not root.exists(chardev):
            continue
        for name in names(address, record):
            links[name] = "../" + chardev[len(BASE) + 1 :]
            count[name] += 1
    # Skip ambiguous names.
    return {name: target for name, target in links.items() if count[name] == 1}


def present(root: Root) -> dict[str, str]:
    """Return every existing name and its target."""
    found = {}
    for kind in KINDS:
        for name in root.listdir(BASE, kind):
            found["%s/%s" % (kind, name)] = root.readlink(BASE, kind, name) or ""
    return found


def changes(root: Root, originals: Originals) -> dict[str, str | None]:
    """Return what :func:`update` would do: each name with its new target, None if it is removed."""
    there, shall = present(root), wanted(root, originals)
    stale: dict[str, str | None] = {name: None for name in there if name not in shall}
    return dict(sorted({**stale, **{name: to for name, to in shall.items() if there.get(name) != to}}.items()))


def update(root: Root, originals: Originals) -> None:
    """Bring the names up to date."""
    for name, target in changes(root, originals).items():
        if target is None:
            root.remove_file("%s/%s" % (BASE, name))
        else:
            root.write_link("%s/%s" % (BASE, name), target)
    for kind in KINDS:
        root.remove_empty_dir("%s/%s" % (BASE, kind))
