# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boot-time tool: brings the remembered bindings up by identity, without Ansible.

Each device is a transaction of its own: one that is gone or refused must not keep the others from coming up.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any, Callable

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.fs import Root
from .._base.lock import exclusive
from .._base.paths import ACCESS_RECORD, BINDINGS, GRANTED_MODE
from .._base.records import dump_json, load_json
from .._devices import links
from .._devices.control import Kernel
from .._devices.identity import Match, follow, locate
from .._devices.originals import Originals
from .._devices.sriov import VfPlan, count, losses
from .._devices.steps import observe, plan, target
from .._devices.transaction import INTERRUPTED, Transaction
from .._host.accounts import read_groups
from .._host.iommu import chardev_of, group_refusals
from .._host.pci import PciBus, PciDevice
from .._policy.backend import IOMMU, choose, needs
from .._policy.granted_nodes import granted_nodes
from .._policy.guard_context import GuardContext
from .._policy.guards import check, loss_refusals

# udev loads drivers in parallel with this tool, and some wait for their card's firmware; so long an interface may take
# to appear. Only a device that is not known before makes a boot wait.
IDENTITY_WAIT = 60.0


class Boot:
    """One run of the tool."""

    def __init__(self, kernel: Kernel, context: GuardContext, log: Callable[[str], Any]) -> None:
        self.kernel, self.root = kernel, kernel.root
        self._context = context
        self._log = log

    def bind(self) -> int:
        """Bind every remembered device; return how many could not be."""
        with exclusive(self.root):
            return self._bind()

    def _bind(self) -> int:
        bindings = load_json(self.root, BINDINGS)
        if bindings is None:
            self._log("%s: absent, nothing to bind" % BINDINGS)
            return 0
        originals = Originals.load(self.root)
        before, deadline = dump_json(bindings), time.monotonic() + IDENTITY_WAIT
        failed = self._make_functions(bindings, originals, deadline)
        others = {entry["address"] for entry in bindings.get("sriov", [])}
        matches, bus = locate(self.root, bindings["devices"], bindings["driver"], deadline, others)
        self._context = self._context.fresh()
        found = list(zip(bindings["devices"], matches))
        originals.devices = follow(found, originals.devices)
        for key in ("devices", "sriov"):
            bindings.get(key, []).sort(key=lambda entry: entry["address"])
        try:
            if dump_json(bindings) != before:
                originals.save(self.root)
                self.root.write_file(BINDINGS, dump_json(bindings))
            if found:
                self._prepare(bindings, originals)
        except HostError as exc:
            self._log("no device was bound: %s" % exc)
            return failed + len(found)
        for entry, match in found:
            failed += not self._bind_one(entry, match, bus, bindings, originals)
        links.update(self.root, originals)
        self._give_nodes()
        return failed

    def _give_nodes(self) -> None:
        """Give the nodes to those to whom udev will give them: a service that starts after this may be sooner."""
        granted = load_json(self.root, ACCESS_RECORD) or {}
        account = read_groups(self.root).get(granted.get("group", ""))
        if account is None:
            return
        for path in granted_nodes(self.root):
            with contextlib.suppress(OSError):  # udev does it then
                os.chown(self.root.path(path), 0, account.gid)
                os.chmod(self.root.path(path), GRANTED_MODE)

    def _prepare(self, bindings: dict[str, Any], originals: Originals) -> None:
        # The operator accepted insecure mode when the bindings were declared; an IOMMU that works now overrules it.
        choice = choose(self.root, bindings["backend"], accept_unsafe=True)
        if choice.refusals:
            raise Refused(choice.refusals)
        wanted = needs(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"])
        Transaction(self.kernel).prepare(wanted, originals)

    # --- virtual functions ---

    def _make_functions(self, bindings: dict[str, Any], originals: Originals, deadline: float) -> int:
        """Make the remembered virtual functions; return how many physical ones failed."""
        entries, failed = bindings.get("sriov", []), 0
        others = {entry["address"] for entry in bindings["devices"]}
        matches, bus = locate(self.root, entries, None, deadline, others)
        found = list(zip(entries, matches))
        moved = {entry["address"]: match.device.address for entry, match in found if match.device}
        originals.sriov = follow(found, originals.sriov)
        for record in [*originals.devices.values(), *bindings["devices"]]:
            if "vf" in record:
                record["vf"]["pf"] = moved.get(record["vf"]["pf"], record["vf"]["pf"])
        for entry, match in found:
            try:
                if match.device is None:
                    raise HostError("gone", match.note)
                self._make(match.device, entry["vfs"], bus, bindings, set(originals.devices))
            except HostError as exc:
                failed += 1
                self._log("%s: no virtual functions: %s" % (entry["address"], exc))
        return failed

    def _make(self, pf: PciDevice, number: int, bus: PciBus, bindings: dict[str, Any], ours: set[str]) -> None:
        one = VfPlan(pf, count(self.root, pf), number)
        if not one.changes:
            return
        refusals = loss_refusals(self._context, bus, losses([one], bus), ours)
        if refusals:
            raise Refused(refusals)
        taken = {entry["address"] for entry in bindings["devices"] if entry.get("vf", {}).get("pf") == pf.address}
        with Transaction(self.kernel) as transaction:
            transaction.set_functions(one, taken)
        self._log(str(one))

    # --- devices ---

    def _bind_one(
        self, entry: dict[str, Any], match: Match, bus: PciBus, bindings: dict[str, Any], originals: Originals
    ) -> bool:
        device = match.device
        if device is None:
            self._log("%s: skipped, %s" % (entry["address"], match.note))
            return False
        try:
            self._refuse_guarded(device, bus, bindings, originals)
            with Transaction(self.kernel) as transaction:
                originals.record(device, bus)
                transaction.save(originals)
                transaction.move(device, target(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"]))
                chardev = self.kernel.wait_for_group(device)
        except HostError as exc:
            self._log("%s: FAILED: %s" % (entry["address"], exc))
            if exc.code == INTERRUPTED:
                raise
            return False
        safety = observe(self.root, device).safety
        note = "; " + match.note if match.note else ""
        self._log("%s: on %s, %s, %s%s" % (device.address, bindings["driver"], chardev, safety, note))
        return True

    def _refuse_guarded(self, device: PciDevice, bus: PciBus, bindings: dict[str, Any], originals: Originals) -> None:
        guards = check(self._context, bus, device)
        refusals = [guard.refusal() for guard in originals.standing(guards, device, bus)]
        if bindings["backend"] == IOMMU:
            listed = {entry["address"] for entry in bindings["devices"]}
            refusals += group_refusals(self.root, bus, [device], listed)
        if refusals:
            raise Refused(refusals)

    def status(self) -> dict[str, Any]:
        """Return the remembered bindings beside what is."""
        bindings = load_json(self.root, BINDINGS)
        if bindings is None:
            return {"backend": None, "ok": True, "devices": []}
        want = target(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"])
        bus, devices = PciBus(self.root), []
        for entry in bindings["devices"]:
            device = bus.get(entry["address"])
            if device is None:
                devices.append({"address": entry["address"], "present": False, "ok": False})
                continue
            state = observe(self.root, device)
            chardev = chardev_of(self.root, state.group)
            devices.append(dict(state.report(), present=True, chardev=chardev, ok=not plan(state, want)))
        return {"backend": bindings["backend"], "ok": all(one["ok"] for one in devices), "devices": devices}


def _say(line: str) -> None:
    """Write one line; under systemd that is the journal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Entry point of ``python3 /usr/local/lib/noiommu/noiommu.pyz``."""
    root = Root()
    boot = Boot(Kernel(root, Runner()), GuardContext(root), _say)
    if argv == ["status"]:
        status = boot.status()
        _say(json.dumps(status, indent=2))
        return 0 if status["ok"] else 1
    if argv == ["bind"]:
        try:
            return 1 if boot.bind() else 0
        except HostError as exc:
            _say(str(exc))
            return 1
    _say("usage: python3 /usr/local/lib/noiommu/noiommu.pyz bind|status")
    return 2
