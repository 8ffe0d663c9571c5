# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide what the declared devices need: select, check guards, plan."""

from __future__ import annotations

from typing import Any

from .._base.errors import HostError, Refused
from .._base.files import FileSet
from .._base.paths import LIBRARY, STATE
from .._devices.control import Kernel
from .._devices.held import hanging as find_hanging
from .._devices.held import in_use
from .._devices.originals import Originals
from .._devices.selectors import match
from .._devices.sriov import AUTOPROBE, VfPlan, losses, plan_functions
from .._devices.steps import target
from .._devices.vf_settings import Settings, remarkable
from .._host.iommu import group_refusals
from .._host.mounts import refuse_late
from .._host.pci import PciBus, PciDevice
from .._policy.backend import Needs, choose, needs
from .._policy.declared_bars import choose_declared
from .._policy.guard_context import GuardContext
from .._policy.guards import check, loss_refusals
from .._policy.kinds import IOMMU
from .._policy.unsuitable import unsuitable
from .._policy.vfio_ids import id_refusals
from . import boot_files, refusals
from .bindings import content
from .moves import Move, plan_bindings
from .releases import ReleasePlan, obstructed
from .request import Request, explicit


class BindingPlan:
    """Everything that one call will do. Nothing here changes the host."""

    def __init__(self, kernel: Kernel, context: GuardContext, request: Request, check_mode: bool = False) -> None:
        """Raise :class:`Refused` with every reason against the request."""
        self.kernel, self.root = kernel, kernel.root
        self.request, self._declared = request, explicit(self.root, request)
        self.context, self._check_mode = context, check_mode
        self.present = PciBus(self.root)
        self._bus = PciBus(self.root)  # as it will be, with the virtual functions that do not exist yet
        self.recorded = Originals.load(self.root)
        self.originals = self.recorded.copy()
        self.messages: list[str] = []
        self.warnings: list[str] = []  # the messages that are shown as warnings
        self.renewed: list[str] = []  # devices that were replaced by others of the same kind

        self.vf_plans, errors = plan_functions(
            self.root, self._bus, self._declared.sriov, self.recorded.identities(), self.recorded.sriov
        )
        self.lost = losses(self.vf_plans, self.present)
        pairs, unmatched = match(self._declared.devices, self._bus, self.recorded.identities())
        self.devices = [device for device, _entry in pairs]
        self.backend, unsupported = self._choose_backend()
        errors += unmatched + unsupported + self._guarded()
        self._combined, harmful, unknown = choose_declared(self.root, pairs, request.driver)
        errors += harmful
        self.messages += unknown
        self.kept: dict[str, str] = {}  # devices that cannot be released now, and why
        needed = {device.address for device in [*self.devices, *(vf for _pf, vf in self.lost)]}
        hanging = find_hanging(self.root, {*self.recorded.devices, *needed})
        errors += [error for address, error in hanging.items() if address in needed]
        declared = {device.address for device in self.devices} | {plan.pf.address for plan in self.vf_plans}
        errors += refusals.damaged({key: text for key, text in self.recorded.damage.items() if key in declared})
        if errors:
            raise Refused(errors)
        self.needs = Needs([], {}, [])
        if self.backend is not None:
            self.needs = needs(self.backend, request.driver, request.dpdk_pa_hint, bool(self._combined))
        self.releases = self._plan_releases(hanging)
        self.bindings = self._plan_bindings()
        self._refuse()
        self._record_functions()
        self.messages += self.warnings
        self.files = self.render()

    @property
    def is_declared(self) -> bool:
        return bool(self.devices or self._declared.sriov)

    @property
    def enabled(self) -> bool:
        """Whether anything is bound at boot."""
        return self.is_declared and self.request.persistent

    def render(self) -> FileSet:
        """Return the files for the boot, and noiommu-verify as long as there is anything that it can see."""
        bindings = None
        if self.enabled:
            devices = [(device, self._combined.get(device.address, ())) for device in self.devices]
            bindings = content(self.root, self._bus, self.request, self.backend, devices, self.originals, self.vf_plans)
        options, has_verify = self.needs.modprobe_options, self.enabled or bool(self.kept)
        return FileSet(self.root, boot_files.rendered(self.root, bindings, options, has_verify))

    def _choose_backend(self) -> tuple[str | None, list[HostError]]:
        request = self.request
        if not self._declared.devices:
            return None, []
        # In a dry run of a whole play, the reboot that turns the IOMMU on has not happened.
        is_dry_iommu = self._check_mode and request.backend == IOMMU
        choice = choose(self.root, request.backend, request.accept_unsafe, is_dry_iommu)
        self.messages += choice.warnings
        return choice.backend, choice.refusals

    def _guarded(self) -> list[HostError]:
        """Return what the host needs of the devices and of the virtual functions that would be lost."""
        errors = loss_refusals(self.context, self.present, self.lost, set(self.recorded.devices))
        there = [device for device in self.devices if not device.planned]
        for device in there:
            guards = check(self.context, self.present, device)
            errors += [guard.refusal() for guard in self.recorded.standing(guards, device, self.present)]
            errors += unsuitable(self.root, device, self.request.driver)
        errors += id_refusals(self.root, self.present, self.backend, {device.address for device in self.devices})
        if self.backend == IOMMU:
            errors += group_refusals(self.root, self.present, there, {device.address for device in self.devices})
        if len(there) < len(self.devices):
            self.messages.append(
                "%d virtual functions do not exist yet: their MAC addresses, groups and guards are known "
                "once they do." % (len(self.devices) - len(there))
            )
        return errors

    def _plan_releases(self, hanging: dict[str, HostError]) -> list[Move]:
        """Plan to release what is not declared, except for devices that cannot be released now."""
        releases = ReleasePlan(self.present, self.recorded, self.originals)
        declared = {device.address: device.vendor_device for device in self.devices}
        moves = releases.moves(declared, {device.address for _pf, device in self.lost}, self.request.driver)
        self.messages += releases.messages
        self.warnings += releases.warnings + self.keep(obstructed(self.kernel, moves, hanging))
        return [move for move in moves if move.device.address not in self.kept]

    def keep(self, reasons: dict[str, str]) -> list[str]:
        """Record why devices are not released, for the next run and for who looks at the host meanwhile."""
        for address, reason in reasons.items():
            self.kept[address] = self.originals.devices[address]["unreleased"] = reason
        return ["%s was not released: %s" % pair for pair in reasons.items()]

    def _plan_bindings(self) -> list[Move]:
        if self.backend is None:
            return []
        for device in self.devices:
            self._renewed(device, self.originals.record(device, self._bus))
            self.originals.devices[device.address].pop("unreleased", None)
            if self.originals.devices[device.address].get("probe") and device.address not in self.recorded.devices:
                self.warnings.append(
                    "%s is bound by this collection, or is in an insecure VFIO group, but there is no record of it:"
                    " when it is released, it goes to whichever driver of the host matches it." % device.address
                )
        driver, hint, bars = self.request.driver, self.request.dpdk_pa_hint, self._combined
        wanted = [target(self.backend, driver, hint, bars.get(device.address, ())) for device in self.devices]
        return plan_bindings(self.root, list(zip(self.devices, wanted)))

    def _refuse(self) -> None:
        errors = refusals.expired(self.backend, self.request.insecure_until, self.bindings)
        errors += in_use(self.kernel, refusals.leaving(self.moves) + [vf for _pf, vf in self.lost]).values()
        errors += refusals.set_up(self.kernel, self.context, self.present, self.vf_plans)
        missing = refusals.module_missing(self.root, self.needs.modules)
        if missing and self._check_mode:
            # In a dry run of a whole play, the role that builds the module has not built it.
            self.messages.append("%s This is a dry run: an earlier task may build it." % missing.message)
        elif missing:
            errors.append(missing)
        if self.is_declared and self.request.persistent:
            errors += refuse_late(self.root, (LIBRARY, STATE))
        if errors:
            raise Refused(errors)

    def _record_functions(self) -> None:
        """Record what is about to change, and remove the records of physical functions that are gone."""
        for plan in self.vf_plans:
            if plan.record is None and (plan.changes or plan.to_set):
                state: dict[str, Any] = {"vfs": plan.now, "autoprobe": self.root.read_text(plan.pf.path, AUTOPROBE)}
                if plan.down:
                    state["down"] = plan.down
                self.originals.record_sriov(plan.pf, self._bus, state)
                self.originals.record_settings(plan.pf.address, _settings_to_lose(plan, self.originals))
            self._renewed(plan.pf, self.originals.renew_sriov(plan.pf, self._bus))
        there = {plan.pf.address for plan in self.vf_plans}
        for address in [address for address in self.originals.sriov if address not in there]:
            del self.originals.sriov[address]
            self.messages.append("%s is gone from this host; the record of its virtual functions is removed." % address)

    def _renewed(self, device: PciDevice, replacement: str) -> None:
        if not replacement:
            return
        self.renewed.append(device.address)
        driver = self.originals.devices.get(device.address, {}).get("driver", device.driver)
        self.warnings.append(
            "%s was replaced by another device of the same kind: %s. Its record is renewed; its original driver is %s."
            % (device.address, replacement, driver or "none")
        )

    @property
    def autoprobe(self) -> dict[str, str]:
        """The value that a killed run left in the switch that keeps drivers off new virtual functions."""
        wanted = {
            plan.pf.path + "/" + AUTOPROBE: self.recorded.sriov.get(plan.pf.address, {}).get("autoprobe")
            for plan in self.vf_plans
        }
        return {path: value for path, value in wanted.items() if value and self.root.read_text(path) != value}

    @property
    def moves(self) -> list[Move]:
        return self.releases + self.bindings


def _settings_to_lose(plan: VfPlan, originals: Originals) -> dict[int, Settings]:
    """Return how the host set up what a run sets otherwise, or destroys for another number of it."""
    if not plan.changes:
        return {index: {key: plan.found[index][key] for key in settings} for index, settings in plan.to_set.items()}
    # Those of a number that this collection set are no more the host's.
    is_hosts = originals.sriov[plan.pf.address]["vfs"] == plan.now
    found = {index: remarkable(settings) for index, settings in plan.found.items()} if is_hosts else {}
    return {index: settings for index, settings in found.items() if settings}
