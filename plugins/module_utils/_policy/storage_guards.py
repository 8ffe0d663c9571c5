# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a device that has disks of the host is never taken away."""

from __future__ import annotations

import os

from .._base.fs import Root
from .._host.disks import BLOCK, Disks
from .._host.pci import PciDevice
from .guard_context import Guard, GuardContext, Owner, shorten
from .kinds import DISK_DATA, DISK_MEMBER

# Drivers of filesystems that a hypervisor shares, and the type of their mounts.
_SHARES = {"virtiofs": "virtiofs", "9pnet_virtio": "9p"}


def storage_guards(
    context: GuardContext, device: PciDevice, owners: list[Owner], interfaces: dict[str, str]
) -> list[Guard]:
    """Return the reasons in the disks of a device; ``interfaces``: those on or above it, each with its chain."""
    disks = context.disks
    bases = _bases(context, owners, interfaces)
    chains = _chains(disks, bases)
    guards = _mounted(context, device, chains) + _swapped(disks, device, chains)
    guards = guards or _claimed(disks, device, chains, bases)
    return guards or _members(disks, device, chains) or _data(disks, device, chains)


def _bases(context: GuardContext, owners: list[Owner], interfaces: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return the directories below which the disks are, with what to say before and after a disk's name."""
    bases: dict[str, tuple[str, str]] = {}
    for owner in owners:
        real = owner.device.real
        bases.update((path, (owner.prefix, "")) for path in [real] + context.disks.nvme_paths(real))
    # The disks of FCoE are below an interface, and a VLAN's directory is not below the device's.
    bases.update((context.net_paths.get(name, ""), ("", " on " + chain)) for name, chain in interfaces.items())
    return bases


def _chains(disks: Disks, bases: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return every block device below these directories and above those, each with the chain that leads to it."""
    chains: dict[str, str] = {}
    for base, (before, after) in bases.items():
        for name in disks.below.get(base, ()):
            chains.setdefault(name, before + name + after)
    pending = list(chains)
    while pending:
        name = pending.pop()
        for holder in disks.holders(name):
            if holder not in chains and holder in disks.paths:
                chains[holder] = "%s on %s" % (holder, chains[name])
                parts = [part for part in disks.partitions(holder) if part not in chains]
                chains.update((part, "%s on %s" % (part, chains[holder])) for part in parts)
                pending += [holder] + parts
    return chains


def _mounted(context: GuardContext, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    disks = context.disks
    mounted, named, files = _shares(disks, device), [], []
    for name, chain in chains.items():
        uses = _uses(disks, name, chain)
        mounted += uses
        if name in disks.declared and not uses and name not in disks.swaps:
            where, text = disks.declared[name]
            files.append(where)
            named.append("%s is named in %s: %s" % (chain, where, text))
    if not mounted and not named:
        return []
    places = ", ".join(dict.fromkeys(files)) or "/etc/fstab"
    return [
        Guard(
            "mount",
            # Named, but not mounted now: an automount, noauto, or a boot that has not come that far.
            "%s holds %s." % (device.address, "mounted filesystems" if mounted else "what %s names" % places),
            shorten(mounted + named),
            "Unmount it and take it out of %s first, or choose another device." % places,
        )
    ]


def _uses(disks: Disks, name: str, chain: str) -> list[str]:
    numbers = disks.numbers(name)
    uses = [
        "%s (%s) is mounted on %s" % (chain, numbers, mount.target)
        for mount in disks.mounts
        if mount.numbers == numbers or (os.path.basename(mount.source) == name and mount.source.startswith("/dev/"))
    ]
    return uses + (["%s belongs to a mounted btrfs" % chain] if disks.in_btrfs(name) else [])


def _shares(disks: Disks, device: PciDevice) -> list[str]:
    """Return the mounts of what a hypervisor shares. It has no block device, so every mount of that type counts."""
    if device.driver != "virtio-pci":
        return []
    evidence = []
    for child in (name for name in disks.root.listdir(device.real) if name.startswith("virtio")):
        driver = disks.root.link_name(device.real, child, "driver") or ""
        evidence += [
            "%s: driver %s; %s (%s) is mounted on %s" % (child, driver, mount.source, mount.fstype, mount.target)
            for mount in disks.mounts
            if mount.fstype == _SHARES.get(driver)
        ]
    return evidence


def _swapped(disks: Disks, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    evidence = ["%s is in /proc/swaps" % chain for name, chain in chains.items() if name in disks.swaps]
    if not evidence:
        return []
    remedy = "swapoff it and take it out of /etc/fstab first, or choose another device."
    return [Guard("swap", "%s holds swap space in use." % device.address, shorten(evidence), remedy)]


def _claimed(disks: Disks, device: PciDevice, chains: dict[str, str], bases: dict[str, tuple[str, str]]) -> list[Guard]:
    evidence = []
    for name, chain in chains.items():
        holders = disks.holders(name)
        if holders:
            evidence.append("%s is held by %s" % (chain, ", ".join(_mapped(disks.root, holder) for holder in holders)))
        elif disks.is_claimed(name):
            evidence.append("%s: opening it exclusively gives EBUSY" % chain)
        else:
            evidence += _users(disks, name, chain)
    raw = {
        name: before + name + after for base, (before, after) in bases.items() for name in disks.raw_below.get(base, ())
    }
    for name, chain in raw.items():
        evidence += _users(disks, name, chain)
    if not evidence:
        return []
    remedy = (
        "Stop what uses it (RAID, LVM, ZFS, an iSCSI or NVMe target, a virtual machine, another mount namespace) first."
    )
    return [Guard("disk_in_use", "%s holds a disk in use." % device.address, shorten(evidence), remedy)]


def _users(disks: Disks, name: str, chain: str) -> list[str]:
    return ["%s is open for writing in %s" % (chain, process) for process in disks.writers.get(name, ())] + [
        "%s is exported to other hosts: %s/enable is 1" % (chain, target) for target in disks.exports.get(name, ())
    ]


def _mapped(root: Root, name: str) -> str:
    mapped = root.read_text(BLOCK, name, "dm/name")
    return "%s (%s)" % (name, mapped) if mapped else name


def _members(disks: Disks, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    kinds = ((chain, disks.member_of(name)) for name, chain in chains.items())
    evidence = ["%s is a member of %s" % (chain, kind) for chain, kind in kinds if kind]
    if not evidence:
        return []
    remedy = "If nothing needs it any more, take it out of its volume group or array and wipe it (wipefs) first."
    return [Guard(DISK_MEMBER, "%s holds a part of a volume." % device.address, shorten(evidence), remedy)]


def _data(disks: Disks, device: PciDevice, chains: dict[str, str]) -> list[Guard]:
    """Refuse disks with data, even if nothing uses them now and no file names them."""
    seen = ((chain, disks.data_on(name)) for name, chain in chains.items())
    evidence = ["%s holds %s" % (chain, data) for chain, data in seen if data]
    if not evidence:
        return []
    remedy = "If nobody needs the data any more, wipe each of these (wipefs --all /dev/<disk>), then run again."
    return [Guard(DISK_DATA, "%s holds data." % device.address, shorten(evidence), remedy)]
