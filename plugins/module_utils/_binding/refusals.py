# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reasons to refuse a planned run other than the declaration and the guards."""

from __future__ import annotations

from .._base import times
from .._base.errors import HostError
from .._base.fs import Root
from .._devices.control import Kernel, nodes_of
from .._devices.sriov import VfPlan
from .._devices.steps import UNBIND
from .._devices.vf_settings import BENIGN, RESETTING, Settings, in_words
from .._host.modules import module_installed, module_loaded
from .._host.pci import PciBus, PciDevice
from .._policy import acceptance
from .._policy.guard_context import GuardContext
from .._policy.guards import check
from .moves import Move


def expired(backend: str | None, until: str | None, moves: list[Move]) -> list[HostError]:
    """Refuse to bind a device insecurely after the acceptance ended; bound devices stay bound."""
    now = times.utc_now()
    is_over = backend in acceptance.INSECURE and acceptance.is_expired(until, now)
    binds = any(move.record is None and move.steps for move in moves)
    return [acceptance.refusal(until, now)] if is_over and binds else []


def leaving(moves: list[Move]) -> list[PciDevice]:
    """Return the devices that are unbound."""
    return [move.device for move in moves if any(step.action == UNBIND for step in move.steps)]


def set_up(kernel: Kernel, context: GuardContext, bus: PciBus, plans: list[VfPlan]) -> list[HostError]:
    """Refuse to set up virtual functions that the host needs as they are, or that a process drives right now."""
    errors = []
    for plan in [plan for plan in plans if plan.record is None and not plan.changes]:
        for index, settings in plan.to_set.items():
            device = bus.functions(plan.pf).get(index)
            if device is None:
                continue
            errors += [guard.refusal() for guard in check(context, bus, device)] if settings.keys() - BENIGN else []
            if settings.keys() & RESETTING:
                errors += [
                    _driven(device, settings, users) for users in kernel.users(nodes_of(bus.root, device)).values()
                ]
    return errors


def _driven(device: PciDevice, settings: Settings, users: list[str]) -> HostError:
    return HostError(
        "in_use",
        "%s has to be set up (%s), but it is in use." % (device.address, in_words(settings)),
        evidence=users,
        remedy="Stop that process first: drivers reset a virtual function that is set up, and would do so under it.",
    )


def damaged(records: dict[str, str]) -> list[HostError]:
    """Refuse to bind devices whose records cannot be used."""
    return [
        HostError(
            "record",
            "The record of the original state of %s is damaged." % address,
            evidence=[damage],
            remedy="Correct or restore it, or remove the entry: the device then goes to whichever driver of the host"
            " matches it when it is released.",
        )
        for address, damage in records.items()
    ]


def module_missing(root: Root, modules: list[str]) -> HostError | None:
    """Refuse what needs the noiommu module where it is not installed."""
    if "noiommu" not in modules or module_loaded(root, "noiommu") or module_installed(root, "noiommu"):
        return None
    return HostError(
        "backend_unavailable",
        "The kernel module noiommu is not installed for the running kernel.",
        evidence=["modules.dep of the running kernel: no noiommu.ko"],
        remedy="Run the role baremetal.noiommu.kmod (or the module dkms_module) first.",
    )
