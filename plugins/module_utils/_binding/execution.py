# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out a plan in one transaction: release, set virtual functions up, bind, write the files; or roll all back."""

from __future__ import annotations

from functools import partial
from typing import Any

from .._base.errors import HostError, Refused
from .._base.fs import Root
from .._devices import links
from .._devices.originals import Originals
from .._devices.sriov import VfPlan, read_settings, require_known
from .._devices.steps import Target
from .._devices.transaction import Transaction
from .._devices.vf_settings import differences, in_words
from .._devices.vf_transaction import configure
from .._host.pci import PciDevice
from .._policy.guards import carried, check, disturbed
from . import boot_files
from .plan import BindingPlan
from .recheck import Recheck

_TAINT_BITS = ((6, "userspace drove a device without isolation"), (12, "out-of-tree"), (13, "unsigned module"))


class Execution:
    """One run. It may end with another plan than it began with: new virtual functions are planned when they exist."""

    def __init__(self, plan: BindingPlan, messages: list[str], warnings: list[str]) -> None:
        """What deserves attention is added to the two lists."""
        self.plan = plan
        self.kernel, self.root = plan.kernel, plan.root
        self._messages, self._warnings = messages, warnings

    def run(self) -> None:
        """Make all changes, or roll everything back and raise."""
        recheck = Recheck(self.kernel, self.plan.context, self.plan.recorded)
        with Transaction(self.kernel, recheck) as transaction:
            self._apply(transaction)

    def _apply(self, transaction: Transaction) -> None:
        root, plan = self.root, self.plan
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
        plan = self.plan
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
        plan = self.plan
        warnings = plan.keep(reasons)
        transaction.save(plan.originals)
        plan.files = plan.render()
        return warnings

    def _warn(self, messages: list[str]) -> None:
        self._messages += [message for message in messages if message not in self._messages]
        self._warnings += [message for message in messages if message not in self._warnings]

    def _existing(self) -> Originals:
        """Return the records of devices that exist; of the others only the number can be restored."""
        plan, existing = self.plan, self.plan.originals.copy()
        for device in plan.devices:
            if device.planned and device.address not in plan.recorded.devices:
                del existing.devices[device.address]
        return existing

    def _change_functions(self, transaction: Transaction) -> bool:
        """Create and remove virtual functions; return whether there are new ones."""
        plan = self.plan
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
        originals = self.plan.originals
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
        later = [move.device.address for move in self.plan.bindings if move.steps]
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
        device = None if vf_plan.changes else self.plan.present.functions(vf_plan.pf).get(index)
        guards = check(self.plan.context.fresh(), self.plan.present, device) if device is not None else []
        if guards:
            raise Refused([guard.refusal() for guard in guards])

    def _continue(self, transaction: Transaction) -> None:
        """Continue with the virtual functions that now exist, guards included, in the same transaction."""
        plan = self.plan
        for move in plan.moves:
            if move.is_lost and move.device.address not in plan.kept:
                del plan.originals.devices[move.device.address]
        transaction.save(plan.originals)
        self.plan = BindingPlan(self.kernel, plan.context.fresh(), plan.request)
        self._warn(self.plan.warnings)
        self._messages += [message for message in self.plan.messages if message not in self._messages]
        self._apply(transaction)

    def _restore_links(self) -> None:
        returned = [move for move in self.plan.releases if move.returns]
        interfaces = {move.device.address: (move.record or {})["interfaces"] for move in returned}
        missing = self.kernel.restore_links(interfaces) if any(interfaces.values()) else []
        if missing:
            self._messages.append("These interfaces did not come back as they were: %s." % ", ".join(missing))

    def _write_files(self, transaction: Transaction) -> None:
        kernel, files, enabled = self.kernel, self.plan.files, self.plan.enabled
        was_enabled, changed_paths = boot_files.is_enabled(self.root), files.changed_paths
        if files.changed or was_enabled != enabled:
            transaction.on_rollback("the boot units", lambda: boot_files.enable(kernel, was_enabled, changed_paths))
            transaction.on_rollback("files", files.rollback)
            files.apply()
            boot_files.enable(kernel, enabled, changed_paths)

    def _finish(self, transaction: Transaction) -> None:
        """Remove the records of what was released and other leftovers: from here on nothing can fail."""
        plan, originals = self.plan, self.plan.originals
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
            self._messages += transaction.restore_host(originals, plan.needs)
        boot_files.remove_leftovers(self.root, plan.is_declared)
        if not plan.is_declared:
            self._messages += _taint_message(self.root)
        transaction.save(originals)


def _taint_message(root: Root) -> list[str]:
    mask = root.read_int("/proc/sys/kernel/tainted") or 0
    bits = ["%d (%s)" % (bit, text) for bit, text in _TAINT_BITS if mask >> bit & 1]
    if not bits:
        return []
    return ["The kernel stays tainted until it is rebooted: mask %d, bits %s." % (mask, ", ".join(bits))]
