# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boot-time tool: brings the remembered bindings up by identity, without Ansible.

Each device is a transaction of its own: one that is gone or refused must not keep the others from coming up.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable, NamedTuple

from ._apply import Transaction
from ._backend import IOMMU, choose, needs, target
from ._errors import HostError, Refused
from ._fs import Root, Runner
from ._guards import GuardContext, check
from ._iommu import group_refusals, read_group
from ._kernel import Kernel
from ._pci import PciBus, PciDevice
from ._plan import observe, plan
from ._store import BINDINGS, Originals, dump_json, load_json

# udev loads drivers in parallel with this tool; so long an interface may take to appear.
IDENTITY_WAIT = 20.0


class Match(NamedTuple):
    """The device an entry means now. Without one, ``note`` says why; with one, what is worth a log line."""

    device: PciDevice | None
    note: str = ""
    final: bool = True  # False: waiting may tell more


def identify(bus: PciBus, entry: dict[str, Any], driver: str) -> Match:
    """Find a remembered device: by its MAC where one is known, else by address and vendor:device."""
    address, macs = entry["address"], set(entry["macs"])
    by_mac = [device for device in bus if any(one.mac in macs for one in device.interfaces)]
    if len(by_mac) > 1:
        return Match(None, "several devices have its MAC: " + ", ".join(device.address for device in by_mac))
    if by_mac:
        moved = "" if by_mac[0].address == address else "found by its MAC at %s" % by_mac[0].address
        return Match(by_mac[0], moved)
    device = bus.get(address)
    if device is None:
        return Match(None, "no such device", final=False)
    if device.vendor_device != entry["vendor_device"]:
        note = "another device is there: %s instead of %s" % (device.vendor_device, entry["vendor_device"])
        return Match(None, note, final=not macs)
    if not macs or device.driver == driver:
        return Match(device)
    if device.interfaces:
        return Match(None, "another MAC is there: %s" % device.mac, final=False)
    return Match(device, "its MAC could not be checked: it has no interface", final=False)


def locate(root: Root, entry: dict[str, Any], driver: str, deadline: float) -> Match:
    """Identify a device, waiting for interfaces that are still to come."""
    while True:
        match = identify(PciBus(root), entry, driver)
        if match.final or time.monotonic() >= deadline:
            return match
        time.sleep(0.2)


class Boot:
    """One run of the tool."""

    def __init__(self, kernel: Kernel, context: GuardContext, log: Callable[[str], Any]) -> None:
        self.kernel, self.root = kernel, kernel.root
        self._context = context
        self._log = log

    def bind(self) -> int:
        """Bind every remembered device; return how many could not be."""
        bindings = load_json(self.root, BINDINGS)
        if bindings is None:
            self._log("%s: absent, nothing to bind" % BINDINGS)
            return 0
        originals = Originals.load(self.root)
        try:
            # The operator accepted insecure mode when the bindings were declared; an IOMMU that works now overrules it.
            choice = choose(self.root, bindings["backend"], accept_unsafe=True)
            if choice.refusals:
                raise Refused(choice.refusals)
            wanted = needs(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"])
            Transaction(self.kernel).prepare(wanted, originals)
        except HostError as exc:
            self._log("no device was bound: %s" % exc)
            return len(bindings["devices"])
        deadline = time.monotonic() + IDENTITY_WAIT
        before = dump_json(bindings)
        failed = sum(not self._bind_one(entry, bindings, originals, deadline) for entry in bindings["devices"])
        bindings["devices"].sort(key=lambda entry: entry["address"])
        if dump_json(bindings) != before:
            self.root.write_file(BINDINGS, dump_json(bindings))
        return failed

    def _bind_one(
        self, entry: dict[str, Any], bindings: dict[str, Any], originals: Originals, deadline: float
    ) -> bool:
        transaction = Transaction(self.kernel)
        try:
            match = locate(self.root, entry, bindings["driver"], deadline)
            if match.device is None:
                self._log("%s: skipped, %s" % (entry["address"], match.note))
                return False
            self._refuse_guarded(match.device, bindings)
            self._remember(entry, match.device, originals)
            transaction.save(originals)
            want = target(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"])
            transaction.move(match.device, want)
            chardev = self.kernel.wait_for_group(match.device)
        except HostError as exc:
            self._log("%s: FAILED: %s" % (entry["address"], " ".join([str(exc)] + transaction.rollback())))
            return False
        safety = observe(self.root, match.device).safety
        note = "; " + match.note if match.note else ""
        self._log("%s: on %s, %s, %s%s" % (match.device.address, bindings["driver"], chardev, safety, note))
        return True

    def _refuse_guarded(self, device: PciDevice, bindings: dict[str, Any]) -> None:
        bus = PciBus(self.root)
        refusals = [guard.refusal() for guard in check(self._context, bus, device)]
        if bindings["backend"] == IOMMU:
            listed = {entry["address"] for entry in bindings["devices"]}
            refusals += group_refusals(self.root, bus, [device], listed)
        if refusals:
            raise Refused(refusals)

    @staticmethod
    def _remember(entry: dict[str, Any], device: PciDevice, originals: Originals) -> None:
        """Keep the records true for a device whose bus number moved."""
        if device.address != entry["address"]:
            record = originals.devices.pop(entry["address"], None)
            if record is not None and device.address not in originals.devices:
                originals.devices[device.address] = record
            entry["address"] = device.address
        originals.record(device)

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
            chardev = None if state.group is None else read_group(self.root, state.group).chardev
            devices.append(dict(state.report(), present=True, chardev=chardev, ok=not plan(state, want)))
        return {"backend": bindings["backend"], "ok": all(one["ok"] for one in devices), "devices": devices}


def _say(line: str) -> None:
    """Write one line; under systemd that is the journal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Entry point of ``python3 /usr/local/lib/noiommu/noiommu_host``."""
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
    _say("usage: python3 /usr/local/lib/noiommu/noiommu_host bind|status")
    return 2
