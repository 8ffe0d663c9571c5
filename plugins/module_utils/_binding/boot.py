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
from collections import Counter
from typing import Any, Callable, Iterable, NamedTuple

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.fs import Root
from .._base.lock import exclusive
from .._base.paths import ACCESS_RECORD, BINDINGS, GRANTED_MODE
from .._base.records import dump_json, load_json
from .._devices import links
from .._devices.control import Kernel
from .._devices.originals import Originals, recorded_as
from .._devices.selectors import plain_serials
from .._devices.sriov import VfPlan, count, losses
from .._devices.steps import observe, plan, target
from .._devices.transaction import INTERRUPTED, Transaction
from .._host.accounts import read_groups
from .._host.iommu import chardev_of, chardevs, group_refusals
from .._host.pci import PciBus, PciDevice
from .._policy.backend import IOMMU, choose, needs
from .._policy.guard_context import GuardContext
from .._policy.guards import check, loss_refusals

# udev loads drivers in parallel with this tool, and some wait for their card's firmware; so long an interface may take
# to appear. Only a device that is not known before makes a boot wait.
IDENTITY_WAIT = 60.0


class Match(NamedTuple):
    """The device an entry means now. Without one, ``note`` says why; with one, what is worth a log line."""

    device: PciDevice | None
    note: str = ""
    final: bool = True  # False: waiting may tell more


def identify(bus: PciBus, entries: list[dict[str, Any]], driver: str | None, others: Iterable[str] = ()) -> list[Match]:
    """Find remembered devices: by MAC or serial number or slot where one is known, else by address.

    All at once: what is one's is no other's. ``others``: where declared devices are that are not among them.
    """
    known = [_by_identity(bus, entry, driver) for entry in entries]
    places = Counter(match.device.address for match in known if match is not None and match.device is not None)
    matches = []
    for entry, match in zip(entries, known):
        if match is None and (entry["address"] in places or "original" in entry):  # see follow()
            match = Match(None, "another declared device is there", final=False)
        elif match is None:
            unknown = {other["address"] for other, one in zip(entries, known) if one is None and other is not entry}
            match = _at_its_address(bus, entry, driver, unknown.union(places, others))
        elif match.device is not None and places[match.device.address] > 1:
            match = Match(None, "several declared devices could be " + match.device.address, final=False)
        matches.append(match)
    return matches


def _by_identity(bus: PciBus, entry: dict[str, Any], driver: str | None) -> Match | None:
    """Find a device by what it is and not by where it is; None if that cannot tell."""
    if "vf" in entry:
        return _identify_function(bus, entry)
    macs = set(entry["macs"])
    by_mac = [device for device in bus if any(one.permanent in macs for one in device.interfaces)]
    if len(by_mac) > 1:
        return Match(None, "several devices have its MAC: " + _listed(by_mac))
    if by_mac:
        return _found(entry, by_mac[0], "MAC")
    # Some makers give all their cards one number.
    by_serial = [one for one in _with_serial(bus, entry) if not _contradiction(one, entry)]
    if len(by_serial) == 1:
        sure = not macs or (driver is not None and by_serial[0].driver == driver)
        return _found(entry, by_serial[0], "serial number")._replace(final=sure)
    in_slot = [] if macs else _in_slot(bus, entry)
    return _found(entry, in_slot[0], "slot") if len(in_slot) == 1 else None


def _at_its_address(bus: PciBus, entry: dict[str, Any], driver: str | None, others: set[str]) -> Match:
    """Take the device that is where it was, unless what it shows speaks against it or another one could be it as well.

    Before the network is configured no guard knows the device that the host is managed through: after a change of bus
    numbers it may be there. Such a change leaves a device's function number as it was.
    """
    device, serials = bus.get(entry["address"]), entry.get("serials")
    if device is None:
        return Match(None, "no such device", final=False)
    if device.vendor_device != entry["vendor_device"]:
        return Match(None, _another_kind(device, entry), final=not (entry["macs"] or serials))
    rivals = [
        one
        for one in _alike(bus, entry)
        if one.address != device.address
        and one.address not in others
        and not _contradiction(one, entry)
        and (one.driver is None or one.driver != driver)
    ]
    contradiction = _contradiction(device, entry)
    if contradiction:
        return Match(None, contradiction, final=not entry["macs"] and not rivals)
    if (device.driver is not None and device.driver == driver) or (not entry["macs"] and not serials):
        return Match(device)
    unchecked = "its serial number could not be checked: its driver does not show it"
    if entry["macs"]:
        unchecked = "its MAC could not be checked: it has no interface"
    if rivals:
        return Match(None, "%s, and it could as well be %s" % (unchecked, _listed(rivals)), final=False)
    return Match(device, unchecked, final=False)


def _contradiction(device: PciDevice, entry: dict[str, Any]) -> str:
    """Say what a device shows that the remembered one did not have; nothing if it may be that one."""
    if entry["macs"] and device.interfaces and not any(one.permanent in entry["macs"] for one in device.interfaces):
        return "another MAC is there: %s" % device.mac
    # A disk's driver shows one more: either may have been seen without it.
    known, shown = plain_serials(entry.get("serials", [])), plain_serials(device.serials)
    if known and not (known <= shown or shown <= known):
        return "another serial number is there: %s" % ", ".join(device.serials)
    return ""


def _found(entry: dict[str, Any], device: PciDevice, name: str) -> Match:
    return Match(device, "" if device.address == entry["address"] else "found by its %s at %s" % (name, device.address))


def _alike(bus: PciBus, entry: dict[str, Any]) -> list[PciDevice]:
    """Return the devices of the same kind that are the same function of their card."""
    function = entry["address"][-1]
    return [one for one in bus if one.vendor_device == entry["vendor_device"] and one.address[-1] == function]


def _with_serial(bus: PciBus, entry: dict[str, Any]) -> list[PciDevice]:
    wanted = plain_serials(entry.get("serials", []))
    return [one for one in _alike(bus, entry) if wanted and wanted <= plain_serials(one.serials)]


def _in_slot(bus: PciBus, entry: dict[str, Any]) -> list[PciDevice]:
    if "slot" not in entry or entry.get("serials"):
        return []
    return [one for one in _alike(bus, entry) if bus.slot_of(one) == entry["slot"]]


def _identify_function(bus: PciBus, entry: dict[str, Any]) -> Match:
    """A virtual function is known by the physical one and its index: its MAC address may be a new one at every boot.

    It may still be made: by udev, or by a driver that comes late.
    """
    vf = entry["vf"]
    by_mac = [one for one in bus if any(link.permanent in vf["macs"] for link in one.interfaces) and one.physfn is None]
    if len(by_mac) > 1:
        return Match(None, "several devices have its physical function's MAC: " + _listed(by_mac), final=False)
    pf = by_mac[0] if by_mac else bus.get(vf["pf"])
    if pf is not None and not by_mac and vf["macs"] and pf.interfaces:
        return Match(None, "another physical function is at %s: its MAC is %s" % (pf.address, pf.mac), final=False)
    device = bus.functions(pf).get(vf["index"]) if pf is not None else None
    if device is None:
        there = pf.address if pf is not None else vf["pf"]
        return Match(None, "%s has no virtual function %d" % (there, vf["index"]), final=False)
    if device.vendor_device != entry["vendor_device"]:
        return Match(None, _another_kind(device, entry), final=False)
    return _found(entry, device, "physical function")


def _listed(devices: list[PciDevice]) -> str:
    return ", ".join(device.address for device in devices)


def _another_kind(device: PciDevice, entry: dict[str, Any]) -> str:
    return "another device is there: %s instead of %s" % (device.vendor_device, entry["vendor_device"])


def locate(
    root: Root, entries: list[dict[str, Any]], driver: str | None, deadline: float, others: Iterable[str] = ()
) -> tuple[list[Match], PciBus]:
    """Identify devices, waiting for interfaces that are still to come. Return the bus as it was last seen, too."""
    while True:
        bus = PciBus(root)
        matches = identify(bus, entries, driver, others)
        if all(map(_settled, entries, matches)) or time.monotonic() >= deadline:
            return matches, bus
        time.sleep(0.2)


def _settled(entry: dict[str, Any], match: Match) -> bool:
    # A physical function makes virtual ones only by its driver.
    return match.final and not ("vfs" in entry and match.device is not None and match.device.driver is None)


def follow(found: list[tuple[dict[str, Any], Match]], before: dict[str, Any]) -> dict[str, Any]:
    """Move the entries and return the records of devices that moved: all in one step, as one may be where another was.

    A run that was killed may have saved the originals and not the bindings: whose a record is, its identity says.
    """
    places = {match.device.address for _entry, match in found if match.device}
    left = {entry["address"] for entry, match in found if match.device}
    records = {address: record for address, record in before.items() if address not in places | left}
    for entry, match in found:
        old = entry["address"]
        if match.device is not None:
            new = entry["address"] = match.device.address
            candidates = [before.get(new), before.get(old), entry.pop("original", None)]
            own = next((one for one in candidates if recorded_as(entry, one)), None)
            if own is None and not any(recorded_as(other, before.get(old)) for other, _match in found):
                own = before.get(old)
            if own is not None:
                records[new] = own
            for one in (entry, own or {}):
                if "vf" in one and match.device.physfn is not None:
                    one["vf"]["pf"] = match.device.physfn
        elif old in places:
            # Another one is where it was, and it may be back at the next boot.
            entry.setdefault("original", before.get(old) if recorded_as(entry, before.get(old)) else None)
    return records


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
        for path in chardevs(self.root) if account is not None else ():
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
