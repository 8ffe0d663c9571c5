# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command noiommu-verify: compares a host with what was deployed to it, from the host's own records."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import sys
from typing import Any, Iterator

from .._base import times
from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import (
    ACCESS_RECORD,
    BINDINGS,
    GRANTED_MODE,
    HOTPLUG_PATH,
    HOTPLUG_RULES,
    HOTPLUG_SERVICE,
    HUGEPAGES_SCRIPT,
    HUGEPAGES_UNIT,
    HUGEPAGES_WANTS,
    HUGETLB_MOUNTS_RECORD,
    HUGETLBFS_UNIT,
    LIMITS,
    MODPROBE,
    ORIGINALS,
    UDEV_RULES,
    UNIT,
    UNIT_NAME,
    WANTS,
    drop_in_path,
)
from .._base.records import load_json, load_record, sift
from .._base.schema import anything, fields, items, table, text
from .._devices.identity import replaced
from .._devices.schemas import BINDING, BINDING_SRIOV
from .._devices.schemas import BINDINGS as BINDINGS_SCHEMA
from .._devices.schemas import ORIGINALS as ORIGINALS_SCHEMA
from .._devices.steps import Target, observe, plan, target
from .._host import kernels, taint
from .._host.accounts import read_groups
from .._host.hugetlb import Pools, persistent
from .._host.modules import module_installed, module_loaded
from .._host.mounts import read_mounts
from .._host.pci import PciBus, PciDevice
from .._policy import acceptance
from .._policy.backend import needs
from .._policy.granted_nodes import CONTAINER, can_use_container, granted_nodes
from . import bars, metrics, spdk
from .record import blank, reason

OK, DRIFTED, UNKNOWN = 0, 1, 2
DRIFT_OF_PROGRAM = 101  # which the command turns into 1

# A declared pool in the script that reserves it at boot: the pool's directory, and the count.
_POOL = re.compile(r"^reserve '[^'\n]*' (\S+) (\d+) ", re.MULTILINE)
# What is read of the other roles' records.
_MOUNTED = fields({"mounts": table(anything())}, more=True)
_GRANTED = fields(
    {"group": text(), "users_added": items(text())},
    {
        "services": items(text()),
        "hugetlbfs": anything(),
        "binaries": table(fields({"capabilities": anything()}, more=True)),
    },
    more=True,
)


class Verify:
    """A comparison of the host with its records; the result has the shape of a host in the fleet report."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._bus = PciBus(root)
        self._unknown: list[str] = []  # what could not be compared: it keeps nothing else from being
        self._bindings: dict[str, Any] | None = None
        try:
            self._bindings = load_json(root, BINDINGS, BINDINGS_SCHEMA)
        except HostError as exc:
            self._unknown.append(" ".join(str(exc).split()))
        stored = self._bindings or {}
        self._entries, wrong = sift(stored.get("devices", []), BINDING, "devices")
        self._functions, more_wrong = sift(stored.get("sriov", []), BINDING_SRIOV, "sriov")
        self._damage = wrong + more_wrong
        self._now = times.utc_now()

    def record(self) -> dict[str, Any]:
        """Return everything that was found."""
        flags = taint.report(self._root)
        until = (self._bindings or {}).get("insecure_until")
        found = [
            {"concern": concern, "changes": self._compare(differences)}
            for concern, differences in (
                ("kernel module", self._backend()),
                ("hugepages", self._hugepages()),
                ("device bindings", self._devices()),
                ("access", self._access()),
            )
        ]
        drift = [compared for compared in found if compared["changes"]]
        insecure = acceptance.report(self._root, flags, until, self._now)
        over = [acceptance.refusal(until, self._now).message] if insecure["expired"] else []
        state = "unknown" if self._unknown else "drifted" if drift else "expired" if over else "ok"
        return {
            "state": state,
            "reason": reason(drift, self._unknown + over),
            "drift": drift,
            "backend": (self._bindings or {}).get("backend"),
            "kernel": kernels.running(self._root),
            "insecure": insecure,
            "taint": flags,
            "devices": [self._device(device) for _entry, device in self._present() if device is not None],
            "hugepages": [
                {key: pool[key] for key in ("size", "node", "count", "free")} for pool in Pools(self._root).report()
            ],
            "reboot_pending": self._stale(),
            "keys_to_enrol": [],
        }

    def _compare(self, differences: Iterator[str]) -> list[str]:
        changes = []
        try:
            for difference in differences:
                changes.append(difference)
        except HostError as exc:
            self._unknown.append(" ".join(str(exc).split()))
        return changes

    def _present(self) -> list[tuple[dict[str, Any], PciDevice | None]]:
        return [(entry, self._bus.get(entry["address"])) for entry in self._entries]

    def _device(self, device: PciDevice) -> dict[str, Any]:
        state = observe(self._root, device)
        return {
            "address": device.address,
            "vendor_device": device.vendor_device,
            "driver": state.driver,
            "group": state.group,
            "safety": state.safety,
            "write_combining": list(state.bars.combined),
        }

    def _stale(self) -> list[str]:
        release = kernels.running(self._root)
        if self._root.exists(kernels.MODULES, release):
            return []
        return ["the modules of the running kernel %s are gone" % release]

    # --- what differs, each as one short sentence ---

    def _backend(self) -> Iterator[str]:
        if not self._bindings or not self._bindings["backend"]:
            return
        release = kernels.running(self._root)
        combines = any("write_combining" in entry for entry in self._entries)
        stored = self._bindings
        wanted = needs(stored["backend"], stored["driver"], stored["dpdk_pa_hint"], combines)
        for module in wanted.modules:
            if not module_installed(self._root, module, release):
                yield "%s is not installed for the running kernel %s" % (module, release)
            if not module_loaded(self._root, module):
                yield "%s is not loaded" % module
        for path, value in wanted.parameters.items():
            found = self._root.read_text(path)
            if found is not None and found != value:
                yield "%s is %s instead of %s" % (path, found, value)
        if wanted.modprobe_options and not self._root.exists(MODPROBE):
            yield "%s is missing" % MODPROBE
        if not self._root.exists(UNIT) or not self._root.exists(WANTS):
            yield "%s does not start at boot" % UNIT_NAME
        for path in (HOTPLUG_RULES, HOTPLUG_SERVICE, HOTPLUG_PATH):
            if not self._root.exists(path):
                yield "%s is missing: a device that comes back is not bound before the next boot" % path

    def _devices(self) -> Iterator[str]:
        if not self._root.exists(BINDINGS) and self._root.exists(UNIT):
            yield "%s is missing: the next boot binds nothing" % BINDINGS
        for problem in self._damage:
            yield "%s is damaged, and the next boot skips it: %s" % (BINDINGS, problem)
        for entry in self._functions:
            found = self._root.read_int("/sys/bus/pci/devices", entry["address"], "sriov_numvfs")
            if found != entry["vfs"]:
                yield "%s has %d virtual functions instead of %d" % (entry["address"], found or 0, entry["vfs"])
            try:
                yield from self._settings(entry)
            except HostError as exc:  # the devices are compared all the same
                self._unknown.append("the virtual functions of %s: %s" % (entry["address"], " ".join(str(exc).split())))
        if self._bindings and self._bindings["backend"]:
            yield from self._unbound(
                target(self._bindings["backend"], self._bindings["driver"], self._bindings["dpdk_pa_hint"])
            )
            yield from spdk.disks_without_driver(self._root, self._bus, {entry["address"] for entry in self._entries})
        yield from self._unreleased()

    def _unbound(self, want: Target) -> Iterator[str]:
        for entry, device in self._present():
            if device is None:
                yield "%s is gone" % entry["address"]
            elif device.vendor_device != entry["vendor_device"]:
                yield "%s is %s instead of %s" % (device.address, device.vendor_device, entry["vendor_device"])
            else:
                replacement = replaced(device, self._bus, entry)
                if replacement:
                    yield "%s: %s: deploy again, or no boot binds it" % (device.address, replacement)
                state = observe(self._root, device)
                # Of the BARs it is said what is, since the steps would not tell.
                steps = plan(state, want._replace(write_combining=None))
                if steps:
                    hint = spdk.after_reset(device, state, want)
                    yield "%s: %s%s" % (device.address, ", ".join(map(str, steps)), hint)
                elif state.driver == want.driver:
                    yield from bars.drift(self._root, device, state, entry.get("write_combining", []))

    def _unreleased(self) -> Iterator[str]:
        """Say which devices could not be released, and still are not."""
        records = (load_json(self._root, ORIGINALS, ORIGINALS_SCHEMA) or {}).get("devices", {})
        kept = {key: record for key, record in records.items() if isinstance(record, dict) and "unreleased" in record}
        if not kept:
            return
        from .._devices.originals import is_ours

        for address, record in kept.items():
            device = self._bus.get(address)
            if device is not None and is_ours(self._root, device):
                yield "%s was not released: %s" % (address, record["unreleased"])

    def _settings(self, entry: dict[str, Any]) -> Iterator[str]:
        """Compare the settings of virtual functions with what each boot sets."""
        if not entry.get("functions"):
            return
        from .._devices.sriov import read_settings
        from .._devices.vf_settings import differences, from_record, in_words

        pf, wanted = self._bus.get(entry["address"]), from_record(entry)
        found = read_settings(self._root, pf) if pf is not None else {}
        for index, settings in differences(wanted, found).items():
            there = {key: found.get(index, {}).get(key) for key in settings}
            wrong = [key for key in settings if there[key] != settings[key]]
            yield "%s: virtual function %d has %s instead of %s" % (
                entry["address"],
                index,
                in_words({key: there[key] for key in wrong}),
                in_words({key: settings[key] for key in wrong}),
            )

    def _hugepages(self) -> Iterator[str]:
        """Compare with what the next boot would reserve."""
        for directory, count in _POOL.findall(self._root.read_text(HUGEPAGES_SCRIPT) or ""):
            found = persistent(self._root, directory)
            if found != int(count):
                yield "%s: %d pages instead of %s" % (directory, found, count)
        boot = (HUGEPAGES_SCRIPT, HUGEPAGES_UNIT, HUGEPAGES_WANTS)
        missing = [path for path in boot if not self._root.exists(path)]
        if len(missing) < len(boot):
            for path in missing:
                yield "%s is missing: the next boot reserves nothing" % path
        damage, remedy = "The record of the hugetlbfs mounts is damaged.", "Run the deploy playbook."
        mounted = {mount.target for mount in read_mounts(self._root) if mount.fstype == "hugetlbfs"}
        stored = load_record(self._root, HUGETLB_MOUNTS_RECORD, dict, damage, remedy, _MOUNTED)
        for path in sorted((stored or {"mounts": {}})["mounts"]):
            if path not in mounted:
                yield "%s is not mounted" % path

    def _access(self) -> Iterator[str]:
        damage, remedy = "The record of what was granted is damaged.", "Run the deploy playbook: it says what to do."
        granted = load_record(self._root, ACCESS_RECORD, dict, damage, remedy, _GRANTED)
        if granted is None:
            return
        group = granted["group"]
        account = read_groups(self._root).get(group)
        if account is None:
            yield "the group %s is gone" % group
            return
        for user in granted["users_added"]:
            if user not in account.members:
                yield "%s is not a member of %s" % (user, group)
        if 'GROUP:="%s"' % group not in (self._root.read_text(UDEV_RULES) or ""):
            yield "%s does not give the devices to %s" % (UDEV_RULES, group)
        drop_ins = granted.get("services", []) + ([HUGETLBFS_UNIT] if granted.get("hugetlbfs") else [])
        for path in [LIMITS, *map(drop_in_path, drop_ins)]:
            if not self._root.exists(path):
                yield "%s is missing" % path
        for path, node in sorted(nodes(self._root).items()):
            if (node.st_gid, stat.S_IMODE(node.st_mode)) != (account.gid, GRANTED_MODE):
                yield "%s has gid %d and mode %04o" % (path, node.st_gid, stat.S_IMODE(node.st_mode))
        container = _stat(self._root, CONTAINER)
        if container is not None and not can_use_container(container.st_mode, container.st_gid, account.gid):
            yield "%s has mode %04o: %s cannot use its devices" % (CONTAINER, stat.S_IMODE(container.st_mode), group)
        for path, program in sorted(granted.get("binaries", {}).items()):
            if program["capabilities"] and not has_capabilities(self._root, path):
                yield "%s has lost its capabilities" % path


def nodes(root: Root) -> dict[str, os.stat_result]:
    """Return the device nodes that the group was given."""
    found = {}
    for path in granted_nodes(root):
        node = _stat(root, path)
        if node is not None:  # else its device is just being released
            found[path] = node
    return found


def _stat(root: Root, path: str) -> os.stat_result | None:
    try:
        return os.stat(root.path(path))
    except FileNotFoundError:
        return None


def has_capabilities(root: Root, path: str) -> bool:
    """Whether a program's file has any; an upgrade replaces it by a file without them."""
    try:
        return bool(os.getxattr(root.path(path), "security.capability"))
    except OSError:
        return False


def line(record: dict[str, Any]) -> str:
    """Return the one line for a person or a monitoring agent."""
    if record["reason"]:
        return "%s: %s" % (record["state"].upper(), record["reason"])
    insecure, parts = record["insecure"], ["%d devices" % len(record["devices"])]
    if record["backend"]:
        parts.append("backend %s" % record["backend"])
    if insecure["active"]:
        until = ", accepted until %s" % insecure["until"] if insecure["until"] else ""
        parts.append("INSECURE since %s%s" % (insecure["since"] or "an unknown time", until))
    parts.append("kernel taint %d" % record["taint"]["mask"])
    return "OK: " + "; ".join(parts)


def main(argv: list[str], root: Root | None = None) -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(
        prog="noiommu-verify",
        description="Compare this host with what was deployed to it. Changes nothing.",
        epilog="exit codes: 0 as deployed; 1 it drifted, or the acceptance of insecure passthrough is over; 2 not"
        " known",
    )
    parser.add_argument("--json", action="store_true", help="print everything that was found")
    parser.add_argument(
        "--prometheus", metavar="FILE", help="also write metrics for node_exporter's textfile collector"
    )
    options = parser.parse_args(argv)
    record = _look(root or Root())
    if options.prometheus:
        try:
            text = metrics.render(record, times.utc_now().timestamp(), whole=False)
            Root().write_file(os.path.abspath(options.prometheus), text)
        except HostError as exc:
            record = blank("unknown", " ".join(str(exc).split()))
    shown = json.dumps(record, indent=2, sort_keys=True) if options.json else line(record)
    sys.stdout.write(shown + "\n")
    return {"ok": OK, "unknown": UNKNOWN}.get(record["state"], DRIFTED)


def _look(root: Root) -> dict[str, Any]:
    """Return the record of this host. A failure of ours is not drift."""
    try:
        if root.is_live and os.geteuid() != 0:
            raise HostError("root", "Only root can read the records and the kernel's log.", remedy="Run it as root.")
        return Verify(root).record()
    except HostError as exc:
        return blank("unknown", " ".join(str(exc).split()))
    except Exception as exc:  # an unforeseen state of the host is not drift
        return blank("unknown", " ".join(("this host could not be compared: %r" % exc).split()))


def program(argv: list[str]) -> int:
    """Entry point in the program on the host: Python itself exits with 1 when it fails, so drift has another code."""
    code = main(argv)
    return DRIFT_OF_PROGRAM if code == DRIFTED else code
