# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program on the host: binds the recorded devices by identity, at boot and when they come back, without Ansible.

Each device is a transaction of its own: one that is gone, refused or badly recorded must not hold up the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from functools import partial
from typing import Any, Callable, NamedTuple

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.fs import Root
from .._base.lock import BUILD_WAIT, exclusive
from .._base.paths import ACCESS_RECORD, BINDINGS, GRANTED_MODE
from .._base.records import dump_json, load_json, sift
from .._devices import links
from .._devices.control import Kernel
from .._devices.identity import Match, awaited, follow, locate
from .._devices.originals import Originals
from .._devices.schemas import BINDING, BINDING_SRIOV
from .._devices.schemas import BINDINGS as BINDINGS_SCHEMA
from .._devices.sriov import VfPlan, count, losses, read_settings
from .._devices.steps import observe, plan, target
from .._devices.transaction import INTERRUPTED, Transaction
from .._devices.vf_settings import from_record
from .._host import dpdk_service
from .._host.accounts import read_groups
from .._host.iommu import chardev_of, group_refusals
from .._host.pci import PciBus, PciDevice
from .._policy import write_combining
from .._policy.backend import choose, needs
from .._policy.granted_nodes import granted_nodes
from .._policy.guard_context import GuardContext
from .._policy.guards import check, loss_refusals
from .._policy.kinds import IOMMU
from .function_setup import FunctionSetup
from .hotplug import HotPlug, announce, take_announced
from .recheck import Recheck

# The network waits for the boot unit, and the unit waits for drivers that udev is loading, but no longer than this.
BOOT_WAIT = 10.0
# How long a card whose driver waits for firmware has to show its identity; nothing else waits for that.
PLUG_WAIT = 60.0
_INTERVAL = 0.2
# Exists as long as udev has anything to do.
_UDEV_QUEUE = "/run/udev/queue"


class Stored(NamedTuple):
    """The record of the bindings, without the entries that are damaged."""

    data: dict[str, Any]
    devices: list[dict[str, Any]]
    pfs: list[dict[str, Any]]
    problems: list[str]

    @classmethod
    def load(cls, root: Root) -> Stored | None:
        """Read it; None if there is none."""
        data = load_json(root, BINDINGS, BINDINGS_SCHEMA)
        if data is None:
            return None
        devices, wrong = sift(data["devices"], BINDING, "devices")
        pfs, more_wrong = sift(data.get("sriov", []), BINDING_SRIOV, "sriov")
        return cls(data, devices, pfs, [str(problem) for problem in wrong + more_wrong])

    def render(self) -> str:
        """Return the file's text: the usable entries by address, then the damaged ones as they are."""
        data = dict(self.data)
        for key, entries in (("devices", self.devices), ("sriov", self.pfs)):
            if key in data:
                damaged = [entry for entry in data[key] if not any(entry is usable for usable in entries)]
                data[key] = sorted(entries, key=lambda entry: str(entry["address"])) + damaged
        return dump_json(data)


class Boot:
    """One run of the program."""

    def __init__(self, kernel: Kernel, context: GuardContext, log: Callable[[str], Any]) -> None:
        self.kernel, self.root = kernel, kernel.root
        self._context = context
        self._log = log
        self._unfit: set[str] = set()  # virtual functions whose settings are not as declared

    def bind(self) -> int:
        """Bind every recorded device; return how many could not be."""
        deadline = time.monotonic() + BOOT_WAIT
        with exclusive(self.root):
            take_announced(self.root)  # all are examined now
            self._let_dpdk_service_end(deadline)
            return self._bind(None, lambda: self._is_loading() and time.monotonic() < deadline)

    def plug(self) -> int:
        """Bind the recorded devices among those that udev announces; return how many could not be."""

        def bind(addresses: set[str]) -> int:
            # udev announces every virtual function that a run of Ansible creates.
            with exclusive(self.root, BUILD_WAIT):
                return self._bind(addresses, lambda: False)

        return HotPlug(self.root, self._awaited, bind, PLUG_WAIT).run()

    def _let_dpdk_service_end(self, deadline: float) -> None:
        """Wait for dpdk.service where it binds a device of ours: whoever comes last decides. It may hang."""
        stored = Stored.load(self.root)
        ours = {entry["address"] for entry in (stored.devices if stored is not None else [])}
        theirs = {binding.address for binding in dpdk_service.bindings(self.root)}
        if not ours & theirs or not dpdk_service.is_enabled(self.root):
            return
        while dpdk_service.is_at_work(self.kernel.runner):
            if time.monotonic() >= deadline:
                shared = ", ".join(sorted(ours & theirs))
                self._log("%s has not ended and is not waited for: it may still bind %s" % (dpdk_service.NAME, shared))
                return
            time.sleep(_INTERVAL)

    def _is_loading(self) -> bool:
        return self.root.exists(_UDEV_QUEUE)

    def _awaited(self) -> set[str]:
        stored, bus, is_loading = Stored.load(self.root), PciBus(self.root), self._is_loading()
        entries = stored.devices if stored is not None else []
        return {device.address for entry in entries for device in awaited(bus, entry, is_loading)}

    def _bind(self, only: set[str] | None, is_worth_waiting: Callable[[], bool]) -> int:
        """Bind the recorded devices, or ``only`` those at these addresses and their virtual functions."""
        stored = Stored.load(self.root)
        if stored is None:
            self._log("%s: absent, nothing to bind" % BINDINGS)
            return 0
        for problem in stored.problems:
            self._log("%s: skipped, it is damaged: %s" % (BINDINGS, problem))
        bindings, originals = stored.data, Originals.load(self.root)
        before = stored.render()
        failed = self._make_functions(stored, originals, only, is_worth_waiting)
        others = {entry["address"] for entry in stored.pfs}
        matches, bus = locate(self.root, stored.devices, bindings["driver"], is_worth_waiting, others)
        self._context = self._context.fresh()
        found = list(zip(stored.devices, matches))
        originals.devices = follow(found, originals.devices)
        chosen = [(entry, match) for entry, match in found if _is_chosen(entry, match, only)]
        try:
            if stored.render() != before:
                originals.save(self.root)
                self.root.write_file(BINDINGS, stored.render())
            if chosen:
                self._prepare(bindings, originals, any("write_combining" in entry for entry, _match in chosen))
        except HostError as exc:
            self._log("no device was bound: %s" % exc)
            return failed + len(chosen)
        for entry, match in chosen:
            if only is None and self._is_put_off(entry, match, bus):
                continue
            failed += not self._bind_one(entry, match, bus, stored, originals)
        failed += self._finish(originals)
        return failed + len(stored.problems) * (only is None)

    def _finish(self, originals: Originals) -> int:
        """Give the devices their names and nodes; return how many of the two failed."""
        steps: dict[str, Callable[[], None]] = {
            "names": partial(links.update, self.root, originals),
            "nodes": self._give_nodes,
        }
        failed = 0
        for what, step in steps.items():
            try:
                step()
            except (HostError, OSError) as exc:
                self._log("the devices' %s are not as declared: %s" % (what, exc))
                failed += 1
        return failed

    def _is_put_off(self, entry: dict[str, Any], match: Match, bus: PciBus) -> bool:
        """Leave a device that has not shown its identity to the hot-plug service: the network waits for this run."""
        late = [] if match.is_final else awaited(bus, entry, self._is_loading())
        announce(self.root, [device.address for device in late])
        if late:
            waits = ", ".join("%s (%s)" % (device.address, device.driver or "no driver yet") for device in late)
            self._log("%s: postponed until it shows its identity: %s" % (entry["address"], waits))
        return bool(late)

    def _give_nodes(self) -> None:
        """Give the nodes to the group now: a service that starts after this may be faster than udev."""
        granted = load_json(self.root, ACCESS_RECORD) or {}
        account = read_groups(self.root).get(granted.get("group", ""))
        if account is None:
            return
        for path in granted_nodes(self.root):
            with contextlib.suppress(OSError):  # udev does it then
                os.chown(self.root.path(path), 0, account.gid)
                os.chmod(self.root.path(path), GRANTED_MODE)

    def _prepare(self, bindings: dict[str, Any], originals: Originals, combines: bool) -> None:
        # The operator accepted insecure mode when the bindings were declared; a working IOMMU overrides that.
        choice = choose(self.root, bindings["backend"], accept_unsafe=True)
        if choice.refusals:
            raise Refused(choice.refusals)
        wanted = needs(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"])
        Transaction(self.kernel).prepare(wanted, originals)
        if not combines:
            return
        wanted = needs(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"], True)
        try:
            Transaction(self.kernel).prepare(wanted, originals)
        except HostError as exc:  # each device that wants it will say so, and works without
            self._log("no BAR can be write-combined: %s" % exc)

    # --- virtual functions ---

    def _make_functions(
        self, stored: Stored, originals: Originals, only: set[str] | None, is_worth_waiting: Callable[[], bool]
    ) -> int:
        """Make the recorded virtual functions; return how many physical ones failed."""
        failed = 0
        others = {entry["address"] for entry in stored.devices}
        matches, bus = locate(self.root, stored.pfs, None, is_worth_waiting, others)
        found = list(zip(stored.pfs, matches))
        moved = {entry["address"]: match.device.address for entry, match in found if match.device}
        originals.sriov = follow(found, originals.sriov)
        for record in [*originals.devices.values(), *stored.devices]:
            if "vf" in record:
                record["vf"]["pf"] = moved.get(record["vf"]["pf"], record["vf"]["pf"])
        for entry, match in found:
            if not _is_chosen(entry, match, only):
                continue
            try:
                if match.device is None:
                    raise HostError("gone", match.note)
                failed += self._make(match.device, entry, bus, stored, set(originals.devices))
            except (HostError, OSError) as exc:
                failed += 1
                self._log("%s: no virtual functions: %s" % (entry["address"], exc))
                if isinstance(exc, HostError) and exc.code == INTERRUPTED:
                    raise
        return failed

    def _make(self, pf: PciDevice, entry: dict[str, Any], bus: PciBus, stored: Stored, ours: set[str]) -> int:
        """Make virtual functions and set them up; return how many could not be set up."""
        # Its interface may have got another name since the devices were listed.
        pf = PciBus(self.root).get(pf.address) or pf
        settings = from_record(entry)
        found = read_settings(self.root, pf) if settings else {}
        vf_plan = VfPlan(pf, count(self.root, pf), entry["vfs"], settings=settings, found=found)
        declared = {entry["address"] for entry in stored.devices if entry.get("vf", {}).get("pf") == pf.address}
        setup = FunctionSetup(self.kernel, self._context, vf_plan, declared, self._log)
        if vf_plan.changes:
            refusals = loss_refusals(self._context.fresh(), bus, losses([vf_plan], bus), ours)
            if refusals:
                raise Refused(refusals)
            with Transaction(self.kernel) as transaction:
                transaction.set_functions(vf_plan, declared, lambda: setup.apply(transaction))
            self._log(str(vf_plan))
        elif vf_plan.to_set:
            with Transaction(self.kernel) as transaction:
                setup.apply(transaction)
        self._unfit |= setup.unfit
        return setup.failed

    # --- devices ---

    def _bind_one(self, entry: dict[str, Any], match: Match, bus: PciBus, stored: Stored, originals: Originals) -> bool:
        device, bindings = match.device, stored.data
        if device is not None and device.address in originals.damage:
            self._log("%s: skipped, its record is damaged: %s" % (device.address, originals.damage[device.address]))
            return False
        if device is None:
            self._log("%s: skipped, %s" % (entry["address"], match.note))
            return False
        if device.address in self._unfit:
            self._log("%s: skipped, as it could not be set up as declared" % device.address)
            return False
        try:
            self._refuse_guarded(device, bus, stored, originals)
            chardev, is_whole = self._move_as_declared(device, bus, entry, bindings, originals)
        except (HostError, OSError) as exc:  # it may be pulled out this very moment
            self._log("%s: FAILED: %s" % (entry["address"], exc))
            if isinstance(exc, HostError) and exc.code == INTERRUPTED:
                raise
            return False
        safety = observe(self.root, device).safety
        note = "; " + match.note if match.note else ""
        self._log("%s: on %s, %s, %s%s" % (device.address, bindings["driver"], chardev, safety, note))
        return is_whole

    def _move_as_declared(
        self, device: PciDevice, bus: PciBus, entry: dict[str, Any], bindings: dict[str, Any], originals: Originals
    ) -> tuple[str, bool]:
        """Bind one device; return its group's node, and whether its BARs are as declared.

        Where they cannot be write-combined, it is bound without that: a slower device is better than none.
        """
        try:
            return self._move(device, bus, bindings, originals, entry.get("write_combining", [])), True
        except HostError as exc:
            if exc.code != write_combining.CODE:
                raise
            self._log("%s: bound without write combining: %s" % (entry["address"], exc))
        return self._move(device, bus, bindings, originals, []), False

    def _move(
        self, device: PciDevice, bus: PciBus, bindings: dict[str, Any], originals: Originals, bars: list[int]
    ) -> str:
        """Bind one device, or roll back what was done to it; return its group's node."""
        want = target(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"], bars)
        with Transaction(self.kernel, Recheck(self.kernel, self._context, originals)) as transaction:
            originals.record(device, bus)
            transaction.save(originals)
            transaction.move(device, want)
            return self.kernel.wait_for_group(device)

    def _refuse_guarded(self, device: PciDevice, bus: PciBus, stored: Stored, originals: Originals) -> None:
        guards = check(self._context, bus, device)
        refusals = [guard.refusal() for guard in originals.standing(guards, device, bus)]
        if stored.data["backend"] == IOMMU:
            listed = {entry["address"] for entry in stored.devices}
            refusals += group_refusals(self.root, bus, [device], listed)
        if refusals:
            raise Refused(refusals)

    def status(self) -> dict[str, Any]:
        """Return the recorded bindings and the devices' present state."""
        stored = Stored.load(self.root)
        if stored is None:
            return {"backend": None, "ok": True, "devices": []}
        bindings = stored.data
        bus, devices = PciBus(self.root), []
        for entry in stored.devices:
            device = bus.get(entry["address"])
            if device is None:
                devices.append({"address": entry["address"], "present": False, "ok": False})
                continue
            state, bars = observe(self.root, device), entry.get("write_combining", [])
            want = target(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"], bars)
            chardev = chardev_of(self.root, state.group)
            devices.append(dict(state.report(), present=True, chardev=chardev, ok=not plan(state, want)))
        is_ok = not stored.problems and all(device["ok"] for device in devices)
        return {"backend": bindings["backend"], "ok": is_ok, "devices": devices}


def _is_chosen(entry: dict[str, Any], match: Match, only: set[str] | None) -> bool:
    """Whether an entry's device is among those that a run is for, itself or by its physical function."""
    if only is None:
        return True
    if match.device is None:
        return entry["address"] in only or entry.get("vf", {}).get("pf") in only
    return match.device.address in only or match.device.physfn in only


def _say(line: str) -> None:
    """Write one line; under systemd that is the journal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Entry point of ``python3 /usr/local/lib/noiommu/noiommu.pyz``."""
    root = Root()
    boot = Boot(Kernel(root, Runner()), GuardContext(root), _say)
    try:
        if argv == ["status"]:
            status = boot.status()
            _say(json.dumps(status, indent=2))
            return 0 if status["ok"] else 1
        if argv in (["bind"], ["plug"]):
            return 1 if (boot.bind() if argv == ["bind"] else boot.plug()) else 0
    except HostError as exc:
        _say(str(exc))
        return 1
    _say("usage: python3 /usr/local/lib/noiommu/noiommu.pyz bind|plug|status")
    return 2
