# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics of one host in the format that Prometheus' node_exporter reads from text files."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple

from .._base.times import parse_stamp
from .._policy.acceptance import end_of
from .record import STATES

CHECKED = "noiommu_checked_timestamp_seconds"


class _Sample(NamedTuple):
    labels: dict[str, str]
    value: float


class _Metric(NamedTuple):
    name: str
    help: str
    samples: list[_Sample]


def render(record: dict[str, Any], checked: float, labels: dict[str, str] | None = None, whole: bool = True) -> str:
    """Return a host's record as a text file; what is not known has no sample.

    Not ``whole``: the record was made on the host itself, which knows little of pending reboots and keys.
    """
    common = labels or {}
    lines = []
    for metric in _metrics(record, checked, whole):
        if not metric.samples:
            continue
        lines += ["# HELP %s %s" % (metric.name, _escape_help(metric.help)), "# TYPE %s gauge" % metric.name]
        # A duplicate sample makes node_exporter reject the whole file.
        unique = {tuple(sample.labels.items()): sample for sample in metric.samples}
        lines += [_line(metric.name, dict(common, **sample.labels), sample.value) for sample in unique.values()]
    return "".join(line + "\n" for line in lines)


def _metrics(record: dict[str, Any], checked: float, whole: bool) -> Iterable[_Metric]:
    yield _Metric(
        "noiommu_state",
        "What the last check found: 1 for the state that the host is in.",
        [_Sample({"state": state}, state == record["state"]) for state in STATES],
    )
    yield _Metric(CHECKED, "When this was found.", [_Sample({}, int(checked))])
    yield _Metric(
        "noiommu_backend_info",
        "What makes the devices' IOMMU groups, and the running kernel.",
        [_Sample({"backend": record["backend"], "kernel": record["kernel"] or ""}, 1)] if record["backend"] else [],
    )
    yield from _insecurity(record["insecure"])
    yield from _taint(record["taint"])
    # A host in maintenance must not raise an alarm.
    awake = record["state"] != "maintenance"
    drifted = {entry["concern"] for entry in record["drift"] if awake}
    yield _Metric(
        "noiommu_drift",
        "What differs from the declared state.",
        [_Sample({"concern": concern}, 1) for concern in sorted(drifted)],
    )
    yield from _devices(record["devices"])
    pools = record["hugepages"]
    total = 'Pages in each hugetlb pool; node="" is the host\'s total.'
    yield _Metric("noiommu_hugepages", total, _pools(pools, "count"))
    yield _Metric("noiommu_hugepages_free", "Free pages in it.", _pools(pools, "free"))
    known = whole and record["state"] not in ("unreachable", "failed", "unknown")
    yield _Metric(
        "noiommu_reboot_pending",
        "Whether something takes effect only after a reboot.",
        _known(bool(record["reboot_pending"]) if awake and (known or record["reboot_pending"]) else None),
    )
    yield _Metric(
        "noiommu_keys_to_enrol",
        "Signing keys that the firmware does not trust yet.",
        _known(len(record["keys_to_enrol"]) if known else None),
    )


def _insecurity(insecure: dict[str, Any]) -> Iterable[_Metric]:
    until = end_of(insecure["until"])
    since = parse_stamp(insecure["since"])
    yield _Metric(
        "noiommu_insecure", "Whether devices are in groups that no IOMMU confines.", _known(insecure["active"])
    )
    yield _Metric(
        "noiommu_insecure_since_timestamp_seconds", "Since when.", _known(since.timestamp() if since else None)
    )
    yield _Metric(
        "noiommu_insecure_until_timestamp_seconds",
        "When the operator's acceptance of it ends.",
        _known(until.timestamp() if until else None),
    )
    yield _Metric(
        "noiommu_insecure_expired",
        "Whether that acceptance has ended.",
        _known(insecure["expired"] if insecure["until"] else None),
    )
    yield _Metric(
        "noiommu_insecure_used",
        "Whether a process was given such a device since the last boot.",
        _known(insecure["used_since_boot"]),
    )


def _taint(taint: dict[str, Any] | None) -> Iterable[_Metric]:
    yield _Metric("noiommu_kernel_taint_mask", "The kernel's taint mask.", _known(taint["mask"] if taint else None))
    yield _Metric(
        "noiommu_kernel_taint",
        "The flags that are set in it.",
        [_Sample({"flag": flag["name"], "letter": flag["letter"]}, 1) for flag in (taint or {"flags": []})["flags"]],
    )


def _devices(devices: list[dict[str, Any]]) -> Iterable[_Metric]:
    counts: dict[str, int] = {}
    for device in devices:
        counts[device["safety"]] = counts.get(device["safety"], 0) + 1
    yield _Metric(
        "noiommu_devices",
        "The data plane's devices by how they are protected.",
        [_Sample({"safety": safety}, count) for safety, count in sorted(counts.items())],
    )
    yield _Metric(
        "noiommu_device_info",
        "The data plane's devices.",
        [
            _Sample({key: _shown(device[key]) for key in ("address", "driver", "vendor_device", "group", "safety")}, 1)
            for device in devices
        ],
    )


def _known(value: float | None) -> list[_Sample]:
    return [] if value is None else [_Sample({}, value)]


def _pools(pools: list[dict[str, Any]], key: str) -> list[_Sample]:
    return [_Sample({"size": pool["size"], "node": _shown(pool["node"])}, pool[key]) for pool in pools]


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _line(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join('%s="%s"' % (key, _escape_label(text)) for key, text in labels.items())
    return "%s%s %d" % (name, "{%s}" % pairs if pairs else "", value)


def _escape_label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
