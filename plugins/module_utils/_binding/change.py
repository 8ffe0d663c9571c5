# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bind the declared devices and release the others in one transaction, or roll everything back."""

from __future__ import annotations

from functools import partial
from typing import Any

from .._base.errors import HostError, Refused
from .._base.fs import Root
from .._devices import links
from .._devices.control import Kernel
from .._devices.originals import Originals
from .._devices.sriov import VfPlan, read_settings, require_known
from .._devices.steps import Target
from .._devices.transaction import Transaction
from .._devices.vf_settings import differences, in_words
from .._devices.vf_transaction import configure
from .._host.pci import PciDevice
from .._policy.guard_context import GuardContext
from .._policy.guards import carried, check, disturbed
from . import boot_files, prediction
from .plan import BindingPlan
from .recheck import Recheck
from .request import Request

_TAINT_BITS = ((6, "userspace drove a device without isolation"), (12, "out-of-tree"), (13, "unsigned module"))


class BindingChange:
    """One call. The constructor decides everything and changes nothing; :meth:`apply` does it."""

    def __init__(self, kernel: Kernel, context: GuardContext, request: Request, check_mode: bool = False) -> None:
        """Raise :class:`Refused` with every reason against the request."""
        self.kernel, self.root = kernel, kernel.root
        self._request = request
        self._plan = BindingPlan(kernel, context, request, check_mode)
        self._applied = False
        self.messages, self.warnings = self._plan.messages, self._plan.warnings

    # --- reporting ---

    @property
    def backend(self) -> str | None:
        """The backend of the declared devices."""
        return self._plan.backend

    @property
    def devices(self) -> list[PciDevice]:
        """The declared devices."""
        return self._plan.devices

    @property
    def steps(self) -> list[str]:
        """Describe everything that will be done, in order."""
        return prediction.steps(self._plan)

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return prediction.has_changes(self._plan)

    def before(self) -> dict[str, Any]:
        """Return the state that was found."""
        return prediction.before(self._plan)

    def after(self) -> dict[str, Any]:
        """Return the state reached, before :meth:`apply` the one that will be."""
        return prediction.reached(self._plan) if self._applied else prediction.after(self._plan)

    def diff(self) -> list[dict[str, str]]:
        """Return what --diff shows: devices first, then files."""
        unknown = {} if self._applied else prediction.unknown(self._plan)
        before, after = prediction.as_text(self.before()), prediction.as_text(self.after(), unknown)
        devices = [{"before_header": "devices", "after_header": "devices", "before": before, "after": after}]
        return (devices if before != after else []) + self._plan.files.diff()

    @property
    def unreleased(self) -> list[dict[str, str]]:
        """The devices that could not be released, and why."""
        return [{"address": address, "reason": reason} for address, reason in sorted(self._plan.kept.items())]

    def resolved(self, after: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the declared devices with their identity and their state."""
        return prediction.resolved(self._plan, after)

    # --- changing the host ---

    def apply(self) -> None:
        """Make all changes, or roll everything back and raise."""
        recheck = Recheck(self.kernel, self._plan.context, self._plan.recorded)
        with Transaction(self.kernel, recheck) as transaction:
            self._apply(transaction)
        self._applied = True

    def _apply(self, transaction: Transaction) -> None:
        root, plan = self.root, self._plan
        plan.originals = self._existing()
        # Pushed first, undone last: groups get new numbers when devices are rolled back.
        transaction.on_rollback("the names in " + links.BASE, lambda: links.update(root, plan.recorded))
        # Written before the first change: whatever happens now, a later run can roll it back.
        transaction.save(plan.originals)
        transaction.prepare(plan.needs, plan.originals)
        for vf_plan in [vf_plan for vf_plan in plan.vf_plans if not vf_plan.changes]:
            self._configure(transaction, vf_plan)
        released = [(move.device, move.want, move.record or {}) for move in plan.releases if not move.is_lost]
        self._warn(self._release(transaction, released))
        for vf_plan in list(plan.vf_plans):
            self._warn(self._release_functions(transaction, vf_plan))
        if self._change_functions(transaction):
            self._continue(transaction)
            return
        transaction.move_all([(move.device, move.want) for move in plan.bindings])
        for move in plan.bindings:
            self.kernel.wait_for_group(move.device)
        self._restore_links()
        self._write_files(transaction)
        self._finish(transaction)

    def _release(self, transaction: Transaction, releases: list[tuple[PciDevice, Target, dict[str, Any]]]) -> list[str]:
        """Release devices; those that cannot be are kept, and so is what shows it. Return what nobody must miss."""
        released = transaction.release_all(releases)
        return released.messages + (self._keep(transaction, released.kept) if released.kept else [])

    def _release_functions(self, transaction: Transaction, vf_plan: VfPlan) -> list[str]:
        """Release the virtual functions that are to go. A number that is only given back keeps nothing else."""
        plan = self._plan
        lost = [move for move in plan.releases if move.is_lost and move.device.physfn == vf_plan.pf.address]
        moves = [(move.device, move.want) for move in lost]
        if vf_plan.record is None:
            transaction.move_all(moves)
            return []
        reason = transaction.move_or_keep(moves)
        if not reason:
            return []
        plan.vf_plans.remove(vf_plan)
        return self._keep(transaction, {move.device.address: reason for move in lost})

    def _keep(self, transaction: Transaction, reasons: dict[str, str]) -> list[str]:
        """Keep devices, and what shows that they are kept; return warnings."""
        plan = self._plan
        warnings = plan.keep(reasons)
        transaction.save(plan.originals)
        plan.files = plan.render()
        return warnings

    def _warn(self, messages: list[str]) -> None:
        self.messages += [message for message in messages if message not in self.messages]
        self.warnings += [message for message in messages if message not in self.warnings]

    def _existing(self) -> Originals:
        """Return the records of devices that exist; of the others only the number can be restored."""
        plan, existing = self._plan, self._plan.originals.copy()
        for device in plan.devices:
            if device.planned and device.address not in plan.recorded.devices:
                del existing.devices[device.address]
        return existing

    def _change_functions(self, transaction: Transaction) -> bool:
        """Create and remove virtual functions; return whether there are new ones."""
        plan = self._plan
        changing = [vf_plan for vf_plan in plan.vf_plans if vf_plan.changes]
        for vf_plan in changing:
            before = carried(plan.context, plan.present, vf_plan.pf)
            declared = {device.address for device in plan.devices if device.physfn == vf_plan.pf.address}
            transaction.set_functions(vf_plan, declared, partial(self._configure_new, transaction, vf_plan))
            lost = disturbed(plan.context, vf_plan.pf, before)
            if lost:
                raise HostError(
                    "sriov",
                    "%s lost what the host needs of it when its virtual functions were made." % vf_plan.pf.address,
                    evidence=["gone: " + line for line in lost],
                    remedy="Its driver (%s) restarts the interface: use a device that the host does not need."
                    % vf_plan.pf.driver,
                )
            # The host may use it by now.
            if (vf_plan.record or {}).get("down") and not check(plan.context.fresh(), plan.present, vf_plan.pf):
                transaction.set_down(vf_plan)
        for path, value in plan.autoprobe.items():
            self.root.write_sysfs(path, value + "\n")
        return any(vf_plan.want for vf_plan in changing)

    def _configure_new(self, transaction: Transaction, vf_plan: VfPlan) -> tuple[str, ...]:
        """Set virtual functions up that were just made; record what their driver began with."""
        originals = self._plan.originals
        if vf_plan.record is None and vf_plan.wanted:
            found = read_settings(self.root, vf_plan.pf)
            changing = differences(vf_plan.wanted, found)
            require_known(vf_plan.pf, found, changing)
            before = {index: {key: found[index][key] for key in settings} for index, settings in changing.items()}
            originals.record_settings(vf_plan.pf.address, before)
            transaction.save(originals)
        self._configure(transaction, vf_plan)
        return ()

    def _configure(self, transaction: Transaction, vf_plan: VfPlan) -> None:
        later = [move.device.address for move in self._plan.bindings if move.steps]
        if vf_plan.record is None:
            configure(transaction, vf_plan.pf, vf_plan.wanted, later)
            return
        for index, settings in vf_plan.to_set.items():
            try:
                self._refuse_needed(vf_plan, index)
                configure(transaction, vf_plan.pf, {index: settings}, later)
            except HostError as exc:  # it must not keep the others from going back
                what = "virtual function %d of %s" % (index, vf_plan.pf.address)
                self._warn(["The settings of %s did not go back (%s): %s" % (what, in_words(settings), exc)])

    def _refuse_needed(self, vf_plan: VfPlan, index: int) -> None:
        """By now the host may use a virtual function that is to be set back."""
        device = None if vf_plan.changes else self._plan.present.functions(vf_plan.pf).get(index)
        guards = check(self._plan.context.fresh(), self._plan.present, device) if device is not None else []
        if guards:
            raise Refused([guard.refusal() for guard in guards])

    def _continue(self, transaction: Transaction) -> None:
        """Continue with the virtual functions that now exist, guards included, in the same transaction."""
        plan = self._plan
        for move in plan.moves:
            if move.is_lost and move.device.address not in plan.kept:
                del plan.originals.devices[move.device.address]
        transaction.save(plan.originals)
        self._plan = BindingPlan(self.kernel, plan.context.fresh(), self._request)
        self._warn(self._plan.warnings)
        self.messages += [message for message in self._plan.messages if message not in self.messages]
        self._apply(transaction)

    def _restore_links(self) -> None:
        returned = [move for move in self._plan.releases if move.returns]
        interfaces = {move.device.address: (move.record or {})["interfaces"] for move in returned}
        missing = self.kernel.restore_links(interfaces) if any(interfaces.values()) else []
        if missing:
            self.messages.append("These interfaces did not come back as they were: %s." % ", ".join(missing))

    def _write_files(self, transaction: Transaction) -> None:
        kernel, files, enabled = self.kernel, self._plan.files, self._plan.enabled
        was_enabled, changed_paths = boot_files.is_enabled(self.root), files.changed_paths
        if files.changed or was_enabled != enabled:
            transaction.on_rollback("the boot units", lambda: boot_files.enable(kernel, was_enabled, changed_paths))
            transaction.on_rollback("files", files.rollback)
            files.apply()
            boot_files.enable(kernel, enabled, changed_paths)

    def _finish(self, transaction: Transaction) -> None:
        """Remove the records of what was released and other leftovers: from here on nothing can fail."""
        plan, originals = self._plan, self._plan.originals
        for move in plan.releases:
            if move.device.address not in plan.kept:
                del originals.devices[move.device.address]
        for vf_plan in plan.vf_plans:
            if vf_plan.record is not None:
                del originals.sriov[vf_plan.pf.address]
            elif vf_plan.pf.address in originals.sriov:
                originals.forget_settings(vf_plan.pf.address, vf_plan.settings, vf_plan.want)
        links.update(self.root, originals)
        if not plan.kept:  # they still need what was set for them
            self.messages += transaction.restore_host(originals, plan.needs)
        boot_files.remove_leftovers(self.root, plan.is_declared)
        if not plan.is_declared:
            self.messages += _taint_message(self.root)
        transaction.save(originals)


def _taint_message(root: Root) -> list[str]:
    mask = root.read_int("/proc/sys/kernel/tainted") or 0
    bits = ["%d (%s)" % (bit, text) for bit, text in _TAINT_BITS if mask >> bit & 1]
    if not bits:
        return []
    return ["The kernel stays tainted until it is rebooted: mask %d, bits %s." % (mask, ", ".join(bits))]
