# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a device is never taken away whose character devices a process has open, or that has the host's console."""

from __future__ import annotations

from .._host.pci import PciDevice
from .guard_context import Guard, GuardContext, Owner, shorten


def node_guards(context: GuardContext, device: PciDevice, owners: list[Owner]) -> list[Guard]:
    """Return the reasons in what a device has besides interfaces and disks, of whatever class it is."""
    owners = [owner for owner in owners if owner.is_the_hosts]
    consoles = [owner.prefix + line for owner in owners for line in context.nodes.consoles_below(owner.device.real)]
    opened = [owner.prefix + line for owner in owners for line in context.nodes.open_below(owner.device.real)]
    guards = []
    if consoles:
        guards.append(
            Guard(
                "console",
                "The console of this host is on %s." % device.address,
                consoles,
                "Choose another device, or move the console (the kernel parameter console=, another display) first.",
            )
        )
    if opened:
        guards.append(
            Guard(
                "device_in_use",
                "A process uses %s." % device.address,
                shorten(opened),
                "Stop what uses it (a modem, a tape, a watchdog, a clock, a display), then run again.",
            )
        )
    return guards
