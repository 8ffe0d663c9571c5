# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long insecure passthrough is accepted on a host, since when it is used, and what happens after the last day."""

from __future__ import annotations

import datetime
import re
from typing import Any

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import BINDINGS
from .._base.records import load_json
from .._base.times import stamp
from .._host.iommu import host_iommu, read_groups
from .kinds import BUILTIN, DKMS

INSECURE = (BUILTIN, DKMS)


def end_of(until: str | None) -> datetime.datetime | None:
    """Return when an acceptance ends: at the end of the declared day, UTC."""
    text = str(until or "").strip()
    if not text:
        return None
    try:
        if not re.match(r"^\d{4}-\d\d-\d\d\Z", text):
            raise ValueError("expected YYYY-MM-DD, such as 2027-01-31")
        day = datetime.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=datetime.timezone.utc)
    except ValueError as exc:
        raise HostError(
            "insecure_until",
            "%r is not the date until which insecure passthrough is accepted." % text,
            evidence=["insecure_until (noiommu_insecure_until): %s" % exc],
            remedy="Write the last day on which it is accepted as YYYY-MM-DD; the day ends at midnight UTC.",
        ) from exc
    # The last day that Python can represent means forever.
    return day + datetime.timedelta(days=1) if day.date() < datetime.date.max else day


def is_expired(until: str | None, now: datetime.datetime) -> bool:
    """Whether the declared day is over. Without a date there is no end."""
    end = end_of(until)
    return end is not None and now >= end


def refusal(until: str | None, now: datetime.datetime) -> HostError:
    """Return the refusal of insecure passthrough after its last day."""
    return HostError(
        "insecure_expired",
        "Insecure passthrough was accepted until %s, and that day is over. Nothing on this host was changed." % until,
        evidence=["noiommu_insecure_until: %s, which ended at midnight UTC" % until, "today: %s UTC" % stamp(now)[:10]],
        remedy="Set noiommu_insecure_until to a later date, or remove insecure passthrough with the"
        " playbook baremetal.noiommu.rollback.",
    )


def for_record(
    recorded: dict[str, Any] | None, backend: str | None, until: str | None, now: datetime.datetime
) -> dict[str, str | None]:
    """Return what the bindings' record keeps: since when they are insecure, and until when that was accepted."""
    if backend not in INSECURE:
        return {"insecure_since": None, "insecure_until": None}
    since = (recorded or {}).get("insecure_since")
    return {"insecure_since": since or stamp(now), "insecure_until": until or None}


def report(root: Root, taint: dict[str, Any], until: str | None, now: datetime.datetime) -> dict[str, Any]:
    """Return what noiommu_info says of it; ``taint`` is what kernel_taint_info returns."""
    active = any(group.devices and not (group.hardware or group.emulated) for group in read_groups(root).values())
    since = _since(root, taint) if active else (None, None)
    return {
        "active": active,
        "since": since[0],
        "since_from": since[1],
        "until": until or None,
        # On a host with a working IOMMU and nothing insecure, nothing expires.
        "expired": is_expired(until, now) and (active or host_iommu(root).state != "active"),
        "used_since_boot": taint["insecure_passthrough"],
    }


def _since(root: Root, taint: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the time and where it is from: the record outlives a boot, the kernel log does not."""
    try:
        recorded = load_json(root, BINDINGS) or {}
    except HostError:
        recorded = {}
    if recorded.get("insecure_since"):
        return recorded["insecure_since"], "record"
    logged = [
        entry["since"]
        for flag in taint["flags"]
        for entry in flag["attribution"]
        if entry["insecure_passthrough"] and entry["since"]
    ]
    return (min(logged), "log") if logged else (None, None)
