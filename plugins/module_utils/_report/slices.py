# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report of several runs: each checks some hosts, and what other runs found out about the others is kept.

Large fleets are checked in slices: AWX's job slices, or runs with --limit, one after the other or side by side.
"""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple

from .._base.fs import Root
from .._base.records import load_record, sift
from .._base.schema import Schema, anything, choice, fields, flag, items, nullable, text, whole
from .record import STATES

_TEXT, _MAYBE_TEXT, _MAYBE_CAUSELE = text(), nullable(text()), nullable(whole(None))
_TEXTS = items(text())
_STAMP = text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "a time such as 2026-01-15T08:30:00Z")


def _entry(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    # A later version, whose runs write the same report, may add keys.
    return fields(required, optional, more=True)


_REFUSAL = _entry({"code": _TEXT, "message": _TEXT, "evidence": _TEXTS, "remedy": _TEXT})
_INSECURE = _entry(
    {
        "active": nullable(flag()),
        "since": nullable(_STAMP),
        "since_from": _MAYBE_TEXT,
        "until": _MAYBE_TEXT,
        "expired": flag(),
        "used_since_boot": nullable(flag()),
    }
)
_CAUSE = _entry(
    {
        "kind": _TEXT,
        "name": _TEXT,
        "pid": _MAYBE_CAUSELE,
        "since": nullable(_STAMP),
        "evidence": _TEXT,
        "insecure_passthrough": flag(),
    }
)
_FLAG = _entry({"bit": whole(), "letter": _TEXT, "name": _TEXT, "meaning": _TEXT, "attribution": items(_CAUSE)})
_DEVICE = _entry(
    {
        "address": _TEXT,
        "vendor_device": _TEXT,
        "class": _TEXT,
        "driver": _MAYBE_TEXT,
        "interfaces": _TEXTS,
        "mac": _MAYBE_TEXT,
        "numa_node": _MAYBE_CAUSELE,
        "group": _MAYBE_CAUSELE,
        "chardev": _MAYBE_TEXT,
        "safety": _TEXT,
    }
)
# A host in report.json: whatever the page relies on.
RECORD = _entry(
    {
        "name": _TEXT,
        "state": choice(*STATES),
        "reason": _TEXT,
        "refusals": items(_REFUSAL),
        "drift": items(_entry({"concern": _TEXT, "changes": _TEXTS})),
        "kernel": _MAYBE_TEXT,
        "backend": _MAYBE_TEXT,
        "insecure": _INSECURE,
        "taint": nullable(_entry({"mask": whole(), "flags": items(_FLAG)})),
        "devices": items(_DEVICE),
        "hugepages": items(_entry({"size": _TEXT, "node": _MAYBE_CAUSELE, "count": whole(), "free": whole()})),
        "reboot_pending": _TEXTS,
        "keys_to_enrol": _TEXTS,
    },
    # The first reports did not have these.
    {"os": _TEXT, "warnings": _TEXTS, "checked_at": _STAMP},
)


class Earlier(NamedTuple):
    """What earlier runs found out, by host, and which of their entries are damaged."""

    records: dict[str, dict[str, Any]]
    damaged: list[str]


class Merged(NamedTuple):
    """The records of one report: the new ones of this run, and those of earlier runs that stay."""

    fresh: list[dict[str, Any]]
    kept: list[dict[str, Any]]
    removed: list[str]


def earlier(root: Root, path: str) -> Earlier:
    """Return what the existing report has; nothing if there is none."""
    found = load_record(
        root,
        path,
        _earlier,
        "%s is damaged, and what other runs found out about their hosts is only there." % path,
        "Restore the file, or remove it: then a host is in the report again as soon as a run has checked it.",
        fields({"generated_at": _STAMP, "hosts": items(anything())}, more=True),
    )
    return found or Earlier({}, [])


def _earlier(report: dict[str, Any]) -> Earlier:
    usable, wrong = sift(report["hosts"], RECORD, "hosts")
    records = {record["name"]: {"checked_at": report["generated_at"], **record} for record in usable}
    return Earlier(records, [str(problem) for problem in wrong])


def merge(
    records: Iterable[dict[str, Any]],
    known: dict[str, dict[str, Any]],
    now: str,
    inventory: Iterable[str] | None = None,
) -> Merged:
    """Merge a run's records into those that are known already; ``now`` and all times are stamps.

    With an ``inventory``, hosts that are neither in it nor in this run are removed, and nothing else ever is.
    """
    run = list(records)
    # Two runs may have checked one host: what was seen last counts, unless a clock was wrong.
    fresh = [record for record in run if not record["checked_at"] < _checked(known.get(record["name"])) <= now]
    written = {record["name"] for record in fresh}
    others = {name: record for name, record in known.items() if name not in written}
    listed = set(others if inventory is None else inventory).union(record["name"] for record in run)
    kept = [record for name, record in others.items() if name in listed]
    return Merged(fresh, kept, sorted(name for name in others if name not in listed))


def _checked(record: dict[str, Any] | None) -> str:
    return str(record["checked_at"]) if record else ""
