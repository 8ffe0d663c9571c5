# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command noiommu-verify: compares a host with what was deployed to it, from the host's own records."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, Iterator

from .._base import times
from .._base.errors import HostError
from .._base.fs import Root
from .._devices.steps import observe
from .._host import kernels, taint
from .._host.hugetlb import Pools
from .._host.pci import PciBus, PciDevice
from .._policy import acceptance
from . import access, devices, hugepages, kernel_module, metrics
from .deployed import NOTHING, read_deployed
from .record import blank, reason

OK, DRIFTED, UNKNOWN = 0, 1, 2
DRIFT_OF_PROGRAM = 101  # which the command turns into 1


class Verify:
    """A comparison of the host with its records; the result has the shape of a host in the fleet report."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._bus = PciBus(root)
        self._unknown: list[str] = []  # what could not be compared: it keeps nothing else from being
        try:
            self._deployed = read_deployed(root)
        except HostError as exc:
            self._deployed = NOTHING
            self._unknown.append(" ".join(str(exc).split()))
        self._now = times.utc_now()

    def record(self) -> dict[str, Any]:
        """Return everything that was found."""
        root, deployed = self._root, self._deployed
        flags = taint.report(root)
        until = deployed.bindings.get("insecure_until")
        found = [
            {"concern": concern, "changes": self._compare(differences)}
            for concern, differences in (
                ("kernel module", kernel_module.drift(root, deployed)),
                ("hugepages", hugepages.drift(root)),
                ("device bindings", devices.drift(root, self._bus, deployed, self._unknown)),
                ("access", access.drift(root)),
            )
        ]
        present = [self._bus.get(entry["address"]) for entry in deployed.devices]
        drift = [compared for compared in found if compared["changes"]]
        insecure = acceptance.report(root, flags, until, self._now)
        over = [acceptance.refusal(until, self._now).message] if insecure["expired"] else []
        state = "unknown" if self._unknown else "drifted" if drift else "expired" if over else "ok"
        return {
            "state": state,
            "reason": reason(drift, self._unknown + over),
            "drift": drift,
            "warnings": list(kernel_module.warnings(root, deployed)),
            "backend": deployed.bindings.get("backend"),
            "kernel": kernels.running(root),
            "insecure": insecure,
            "taint": flags,
            "devices": [self._device(device) for device in present if device is not None],
            "hugepages": [
                {key: pool[key] for key in ("size", "node", "count", "free")} for pool in Pools(root).report()
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


def line(record: dict[str, Any]) -> str:
    """Return the one line for a person or a monitoring agent."""
    warnings = "".join("; WARNING: " + warning for warning in record.get("warnings", ()))
    if record["reason"]:
        return "%s: %s%s" % (record["state"].upper(), record["reason"], warnings)
    insecure, parts = record["insecure"], ["%d devices" % len(record["devices"])]
    if record["backend"]:
        parts.append("backend %s" % record["backend"])
    if insecure["active"]:
        until = ", accepted until %s" % insecure["until"] if insecure["until"] else ""
        parts.append("INSECURE since %s%s" % (insecure["since"] or "an unknown time", until))
    parts.append("kernel taint %d" % record["taint"]["mask"])
    return "OK: " + "; ".join(parts) + warnings


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
