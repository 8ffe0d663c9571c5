# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide what the declared devices need: select, check guards, plan."""

from __future__ import annotations

from typing import Any

from .._base.errors import HostError, Refused
from .._base.files import FileSet
from .._base.fs import Root
from .._base.paths import LIBRARY, ORIGINALS, STATE, UNIT_NAME
from .._devices import links
from .._devices.control import Kernel
from .._devices.held import hanging as find_hanging
from .._devices.held import in_use
from .._devices.originals import NO_ORIGINAL, Originals, declared_at_boot, is_ours
from .._devices.selectors import match
from .._devices.sriov import AUTOPROBE, VfPlan, count, losses, plan_functions, read_settings
from .._devices.steps import observe, target
from .._devices.vf_settings import Settings, remarkable
from .._host.iommu import chardev_of, group_refusals
from .._host.modules import module_loaded
from .._host.mounts import refuse_late
from .._host.pci import PciBus, PciDevice
from .._policy import write_combining
from .._policy.backend import IOMMU, Needs, choose, modules_to_unload, needs
from .._policy.guard_context import GuardContext
from .._policy.guards import check, loss_refusals
from .._policy.kinds import PASSTHROUGH_DRIVERS
from .._policy.others import id_refusals
from .._policy.unsuitable import unsuitable
from . import boot_files, refusals
from .bindings import content
from .moves import Move, in_words, plan_bindings, plan_releases
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
        self._combined, harmful, unknown = write_combining.choose(self.root, pairs, request.driver)
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
        self.releases = self._keep(hanging, self._plan_releases())
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

    # --- deciding ---

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

    def _plan_releases(self) -> list[Move]:
        """Plan to release devices that are recorded but not declared, or that were replaced."""
        declared = {device.address: device.vendor_device for device in self.devices}
        records = sorted(self.recorded.devices.items())
        addresses = [address for address, record in records if declared.get(address) != record["vendor_device"]]
        addresses += self._damaged_releases() + self._unrecorded_releases(set(declared))
        lost = {device.address for _pf, device in self.lost}
        moves, messages = plan_releases(self.root, self.present, self.originals, addresses, lost, self.request.driver)
        self.messages += messages
        return moves

    def _keep(self, hanging: dict[str, HostError], moves: list[Move]) -> list[Move]:
        """Keep devices that cannot be released now; return the moves of the others, which they must not hold up."""
        free = [move for move in moves if not move.is_lost and move.device.address not in hanging]
        errors = {**hanging, **in_use(self.kernel, refusals.leaving(free))}
        kept = [move.device.address for move in moves if not move.is_lost and move.device.address in errors]
        reasons = {address: " ".join([errors[address].message, *errors[address].evidence]) for address in kept}
        self.warnings += self.keep(reasons)
        return [move for move in moves if move.device.address not in kept]

    def keep(self, reasons: dict[str, str]) -> list[str]:
        """Record why devices are not released, for the next run and for who looks at the host meanwhile."""
        for address, reason in reasons.items():
            self.kept[address] = self.originals.devices[address]["unreleased"] = reason
        return ["%s was not released: %s" % pair for pair in reasons.items()]

    def _damaged_releases(self) -> list[str]:
        """Remove damaged records, and return their devices, to be released to whichever driver matches them."""
        addresses = []
        for address, damage in self.recorded.damage.items():
            self.originals.forget_damaged(address)
            self.warnings.append(
                "The original state of %s is not known, as its record is damaged: %s." % (address, damage)
            )
            device = self.present.get(address)
            # The record shows that it was bound by us, although not what it was before.
            if device is not None and (is_ours(self.root, device) or device.driver in PASSTHROUGH_DRIVERS):
                addresses.append(self._without_original(device))
        return addresses

    def _unrecorded_releases(self, declared: set[str]) -> list[str]:
        """Return the devices that each boot binds, that are declared no more, and of which the originals are lost."""
        known = {*declared, *self.recorded.devices, *self.recorded.damage}
        lost = [self.present.get(address) for address in declared_at_boot(self.root) if address not in known]
        addresses = [self._without_original(device) for device in lost if device and is_ours(self.root, device)]
        for address in addresses:
            self.warnings.append("The original of %s is not known: %s has no record of it." % (address, ORIGINALS))
        return addresses

    def _without_original(self, device: PciDevice) -> str:
        self.originals.devices[device.address] = {
            "vendor_device": device.vendor_device,
            **NO_ORIGINAL,
            "interfaces": [],
        }
        return device.address

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

    # --- predicting ---

    @property
    def moves(self) -> list[Move]:
        return self.releases + self.bindings

    @property
    def steps(self) -> list[str]:
        """Describe everything that will be done, in order."""
        root, recorded = self.root, self.recorded
        parameters = self.needs.parameters.items()
        steps = ["renew the record of %s" % address for address in sorted(set(self.renewed))]
        steps += ["load module %s" % name for name in self.needs.modules if not module_loaded(root, name)]
        steps += ["set %s to %s" % (path, value) for path, value in parameters if root.read_text(path) != value]
        steps += [step for plan in self.vf_plans if not plan.changes for step in plan.steps]
        steps += in_words(self.releases)
        for plan in self.vf_plans:
            steps += ["%s: set %s up" % (plan.pf.address, name) for name in plan.down]
            steps += [str(plan), *plan.steps] if plan.changes else []
        steps += ["set %s back to %s" % pair for pair in self.autoprobe.items()]
        steps += in_words(self.bindings)
        names = links.changes(root, self.originals).items()
        steps += ["%s the name %s/%s" % ("set" if target else "remove", links.BASE, name) for name, target in names]
        if boot_files.is_enabled(root) != self.enabled:
            steps.append("%s %s" % ("enable" if self.enabled else "disable", UNIT_NAME))
        steps += [] if self.kept else _restored(root, recorded, self.needs)  # those kept need what was set for them
        empty = boot_files.empty_directories(root, self.is_declared)
        return steps + ["remove the empty directory %s" % path for path in empty]

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        is_recorded = self.originals == self.recorded
        return bool(self.steps or self.releases) or not is_recorded or self.files.changed

    def before(self) -> dict[str, Any]:
        """Return the state that was found."""
        return {
            "devices": [move.now.report() for move in self._by_address()],
            "sriov": [plan.report(plan.now, plan.found) for plan in self.vf_plans],
        }

    def after(self) -> dict[str, Any]:
        """Return the state that will be reached."""
        return {
            "devices": [move.predict(self.backend).report() for move in self._by_address()],
            "sriov": [plan.report(plan.want, plan.wanted) for plan in self.vf_plans],
        }

    def unknown(self) -> dict[str, dict[str, str]]:
        """Return in words what cannot be known yet of that state, by device."""
        return {move.device.address: move.unknown() for move in self.moves}

    def reached(self) -> dict[str, Any]:
        """Return the state that there is now."""
        return {
            "devices": [observe(self.root, move.device).report() for move in self._by_address()],
            "sriov": [
                plan.report(count(self.root, plan.pf), read_settings(self.root, plan.pf) if plan.wanted else {})
                for plan in self.vf_plans
            ],
        }

    def _by_address(self) -> list[Move]:
        return sorted(self.moves, key=lambda move: move.device.address)

    def resolved(self, after: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the declared devices with their identity and their state."""
        states = {state["address"]: state for state in after["devices"]}
        records = self.originals.devices
        return [
            dict(
                states[device.address],
                vendor_device=device.vendor_device,
                backend=self.backend,
                chardev=chardev_of(self.root, states[device.address]["iommu_group"]),
                names=["%s/%s" % (links.BASE, name) for name in links.names(device.address, records[device.address])],
                original_driver=records[device.address]["driver"],
                interfaces=[interface["name"] for interface in records[device.address]["interfaces"]],
                macs=self.originals.macs(device.address),
            )
            for device in self.devices
        ]


def _settings_to_lose(plan: VfPlan, originals: Originals) -> dict[int, Settings]:
    """Return how the host set up what a run sets otherwise, or destroys for another number of it."""
    if not plan.changes:
        return {index: {key: plan.found[index][key] for key in settings} for index, settings in plan.to_set.items()}
    # Those of a number that this collection set are no more the host's.
    is_hosts = originals.sriov[plan.pf.address]["vfs"] == plan.now
    found = {index: remarkable(settings) for index, settings in plan.found.items()} if is_hosts else {}
    return {index: settings for index, settings in found.items() if settings}


def _restored(root: Root, recorded: Originals, wanted: Needs) -> list[str]:
    """Describe what is restored of the host once no device needs it."""
    left = [path for path in recorded.parameters if path not in wanted.parameters]
    steps = ["set %s back to %s" % (path, recorded.parameters[path]) for path in left]
    return steps + ["unload module %s" % name for name in modules_to_unload(root, recorded.modules, wanted.modules)]
