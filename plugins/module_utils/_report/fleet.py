# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet report: one record per host from what a run registered, and the files made of all records.

A host is not trusted: whatever it answers becomes a record of the published schema (docs/report.schema.json), of
bounded size, and nothing in it can break out of the file that it is written to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, Iterable, Mapping

from .._base.errors import HostError
from .._base.files import REMOVED
from .._base.times import parse_stamp
from .._host.bars import BARS
from .._policy.acceptance import end_of
from .metrics import CHECKED
from .record import blank, reason

VERSION = 1

# What the roles register, and what people call it, in the order of the roles.
CONCERNS = {
    "kmod_result": "kernel module",
    "passthrough_cmdline": "boot parameters",
    "hugepages_result": "hugepages",
    "hugepages_mounted": "hugepage mounts",
    "devices_result": "device bindings",
    "access_result": "access",
}
REGISTERED = ("preflight_info", "compare_reachable", "compare_facts", "compare_failure", *CONCERNS)

_EXPIRED = "insecure_expired"
_TEXT, _ITEMS = 1000, 200
_KINDS = ("iommu", "builtin", "dkms")
_SAFETY = ("isolated", "unsafe", "none")
# Control characters, and those that change the direction or the width of the text around them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


# --- coercion: the right type or nothing ---


def text(value: Any, limit: int = _TEXT) -> str:
    """Return a value as text of bounded length without invisible characters."""
    shown = value if isinstance(value, str) else "" if value is None else str(value)
    if len(shown) > limit:
        shown = "%s… (%d characters more)" % (shown[:limit], len(shown) - limit)
    return _INVISIBLE.sub(lambda match: "\\u%04x" % ord(match.group()), shown)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else text(value)


def _number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**53:
        return None
    return int(value)


def _count(value: Any) -> int:
    return max(_number(value) or 0, 0)


def _flag(value: Any) -> bool | None:
    return bool(value) if isinstance(value, (bool, int)) else None


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value)[:_ITEMS] if isinstance(value, (list, tuple)) else []


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, Mapping)]


def _texts(value: Any) -> list[str]:
    return [text(entry) for entry in _list([value] if isinstance(value, str) else value)]


def _time(value: Any) -> str | None:
    return None if parse_stamp(value) is None else str(value)


# --- one host ---


def host_record(name: str, registered: Mapping[str, Any], maintenance: str = "") -> dict[str, Any]:
    """Return what a run found out about a host, from the variables that the run registered."""
    results = {key: _dict(registered.get(key)) for key in REGISTERED}
    facts = results["preflight_info"]
    failure = results["compare_failure"]
    refusals = [_refusal(refusal) for refusal in _dicts(_dict(facts.get("verdict")).get("refusals"))]
    refusals += [refusal for refusal in map(_refusal, _dicts(failure.get("refusals"))) if refusal not in refusals]
    drift = [
        {"concern": concern, "changes": found}
        for concern, found in ((concern, changes(results[key])) for key, concern in CONCERNS.items())
        if found
    ]
    record = blank("ok", reason(drift, [refusal["code"] + ": " + refusal["message"] for refusal in refusals]))
    facts = facts if facts.get("verdict") else results["compare_facts"]
    verdict = _dict(facts.get("verdict"))
    if verdict:
        record.update(_facts(facts, verdict))
    if maintenance:
        record["state"], record["reason"] = "maintenance", maintenance
    elif any(result.get("unreachable") for result in results.values()):
        record["state"], record["reason"] = "unreachable", text(_unreachable(results)) or "unreachable"
    elif any(refusal["code"] != _EXPIRED for refusal in refusals):
        record["state"] = "refused"
    elif failure:  # a refusal that was tolerated is not the reason
        record["state"] = "failed"
        record["reason"] = " ".join(text(failure.get("msg") or "The run failed.").split())
    elif not verdict:
        record["state"], record["reason"] = "failed", "The host gave no verdict."
    elif refusals:
        record["state"] = "expired"
    elif drift:
        record["state"] = "drifted"
    record["reason"] = text(record["reason"])
    needs_reboot = [
        "%s: a reboot is needed" % concern
        for key, concern in CONCERNS.items()
        if results[key].get("reboot_required") is True
    ]
    return dict(
        record, name=text(name), refusals=refusals, drift=drift, reboot_pending=record["reboot_pending"] + needs_reboot
    )


def _unreachable(results: Mapping[str, Mapping[str, Any]]) -> str:
    message = next(result.get("msg") for result in results.values() if result.get("unreachable"))
    return re.sub("^Task failed: ", "", " ".join(text(message).split()))


def _refusal(refusal: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "code": text(refusal.get("code")),
        "message": text(refusal.get("message")),
        "evidence": _texts(refusal.get("evidence")),
        "remedy": text(refusal.get("remedy")),
    }


def _facts(facts: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the record that noiommu_info fills."""
    system, insecure, signing = (_dict(facts.get(key)) for key in ("os", "insecure", "module_signing"))
    backend = verdict.get("backend")
    kernel = _dict(facts.get("kernel"))
    waits = signing.get("enforced") is True and signing.get("enrolled") in ("no", "pending")
    return {
        "os": text("%s %s" % (text(system.get("id")), text(system.get("version_id")))).strip(),
        "kernel": _text_or_none(kernel.get("release")),
        "backend": backend if backend in _KINDS else None,
        "insecure": {
            "active": _flag(insecure.get("active")),
            "since": _time(insecure.get("since")),
            "since_from": insecure.get("since_from") if insecure.get("since_from") in ("record", "log") else None,
            "until": _day(insecure.get("until")),
            "expired": insecure.get("expired") is True,
            "used_since_boot": _flag(insecure.get("used_since_boot")),
        },
        "taint": _taint(_dict(facts.get("taint"))),
        "devices": [
            _device(device)
            for device in _dicts(facts.get("devices"))
            if device.get("selected") or device.get("driver") == "vfio-pci"
        ],
        "hugepages": [
            {
                "size": text(pool.get("size")),
                "node": _number(pool.get("node")),
                "count": _count(pool.get("count")),
                "free": _count(pool.get("free")),
            }
            for pool in _dicts(facts.get("hugepages"))
        ],
        "reboot_pending": [_reboot_reason(facts)] if verdict.get("reboot_required") else [],
        "keys_to_enrol": [text(signing.get("certificate") or "DKMS's signing key")] if waits else [],
        "warnings": _texts(verdict.get("warnings")),
    }


def _reboot_reason(facts: Mapping[str, Any]) -> str:
    if _dict(facts.get("iommu_boot")).get("pending"):
        return "the IOMMU is turned on by the next boot"
    return "the modules of the running kernel are gone"


def _day(value: Any) -> str | None:
    try:
        return value if isinstance(value, str) and end_of(value) else None
    except HostError:
        return None


def _taint(taint: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "mask": _count(taint.get("mask")),
        "flags": [
            {
                "bit": _count(flag.get("bit")),
                "letter": text(flag.get("letter")),
                "name": text(flag.get("name")),
                "meaning": text(flag.get("meaning")),
                "attribution": [
                    {
                        "kind": text(cause.get("kind")),
                        "name": text(cause.get("name")),
                        "pid": _number(cause.get("pid")),
                        "since": _time(cause.get("since")),
                        "evidence": text(cause.get("evidence")),
                        "insecure_passthrough": cause.get("insecure_passthrough") is True,
                    }
                    for cause in _dicts(flag.get("attribution"))
                ],
            }
            for flag in _dicts(taint.get("flags"))
        ],
    }


def _device(device: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "address": text(device.get("address")),
        "vendor_device": text(device.get("vendor_device")),
        "class": text(device.get("class")),
        "driver": _text_or_none(device.get("driver")),
        "interfaces": _texts(device.get("interfaces")),
        "mac": _text_or_none(device.get("mac")),
        "numa_node": _number(device.get("numa_node")),
        "group": _number(device.get("group")),
        "chardev": _text_or_none(device.get("chardev")),
        "safety": device.get("safety") if device.get("safety") in _SAFETY else "none",
        "write_combining": _bars(device.get("write_combining")),
    }


def _bars(value: Any) -> list[int]:
    found = value if isinstance(value, list) else []
    return [window for window in found if isinstance(window, int) and not isinstance(window, bool) and window in BARS]


def changes(result: Mapping[str, Any]) -> list[str]:
    """Say what a task would change, and what it could not."""
    unbuilt = [
        text("no module for the kernel %s: %s" % (text(kernel), "; ".join(_texts(why))))
        for kernel, why in _dict(result.get("failed_kernels")).items()
    ]
    kept = [
        text("%s was not released: %s" % (text(device.get("address")), text(device.get("reason"))))
        for device in _dicts(result.get("unreleased"))
    ]
    waits = ["a reboot is needed"] if result.get("reboot_required") is True else []
    wanted = _wanted(result) if result.get("changed") and not result.get("failed") else []
    return wanted + kept + unbuilt[:_ITEMS] + waits


def _wanted(result: Mapping[str, Any]) -> list[str]:
    steps = _texts(result.get("steps"))
    if not steps:
        steps = list(_differences(result.get("before"), result.get("after"), ""))[:_ITEMS]
    if not steps:
        parts = result.get("diff")
        parts = [parts] if isinstance(parts, Mapping) else _dicts(parts)
        names = dict.fromkeys(name for part in parts for name in _names(part))
        steps = ["%s differs" % name for name in names if name]
    return steps or ["not as declared"]


def _names(part: Mapping[str, Any]) -> list[str]:
    """Return what a part of a diff is about."""
    name = text(part.get("before_header") or part.get("after_header"))
    return _texts(text(part.get("before"), 10 * _TEXT).splitlines()) if name == REMOVED else [name]


def _differences(before: Any, after: Any, path: str) -> Iterable[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}, key=str):
            inner = "%s %s" % (path, text(key)) if path else text(key)
            yield from _differences(before.get(key), after.get(key), inner)
    elif before != after:
        yield text("%s: %s instead of %s" % (path, _brief(before), _brief(after)))


def _brief(value: Any) -> str:
    return "nothing" if value is None else text(value, 200)


# --- all hosts ---


def _parts(name: str) -> list[tuple[bool, str]]:
    return [(part.isdecimal(), part) for part in re.findall(r"[0-9]{1,18}|[^0-9]+", name)]


def fleet(records: Iterable[dict[str, Any]], generated_at: str) -> dict[str, Any]:
    """Return the whole report."""
    hosts = sorted(
        ({"os": "", "warnings": [], "checked_at": generated_at, **host} for host in records),
        # host9 before host10, as people count.
        key=lambda host: [(0, int(part), "") if digits else (1, 0, part) for digits, part in _parts(host["name"])],
    )
    return {
        "version": VERSION,
        "generated_at": generated_at,
        "summary": {
            "hosts": len(hosts),
            **{
                state: sum(host["state"] == state for host in hosts)
                for state in ("ok", "drifted", "expired", "refused", "failed", "unreachable", "maintenance")
            },
            "insecure": sum(bool(host["insecure"]["active"]) for host in hosts),
            "tainted": sum(bool(host["taint"] and host["taint"]["mask"]) for host in hosts),
            "reboot_pending": sum(bool(host["reboot_pending"]) for host in hosts),
            "keys_to_enrol": sum(bool(host["keys_to_enrol"]) for host in hosts),
        },
        "hosts": hosts,
    }


def render_json(report: dict[str, Any]) -> str:
    """Return the report for programs."""
    return json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n"


def render_page(report: dict[str, Any], parts: Mapping[str, str]) -> str:
    """Return the report for people; ``parts`` are the page, its style and its script.

    The data can neither end the element that holds it nor be taken for markup: it has no <, > or &, and nothing but
    ASCII. Should that ever fail, the policy lets nothing run but the one script, which puts text into text nodes only.
    """
    data = json.dumps(report, separators=(",", ":"), sort_keys=True, allow_nan=False)
    for character in "<>&":
        data = data.replace(character, "\\u%04x" % ord(character))
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src %s; script-src %s" % (
        _digest(parts["style"]),
        _digest(parts["script"]),
    )
    values = {"policy": policy, "style": parts["style"], "script": parts["script"], "data": data}
    return re.sub(r"@@(\w+)@@", lambda match: values[match.group(1)], parts["page"])


def _digest(source: str) -> str:
    return "'sha256-%s'" % base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def without_times(rendered: str) -> str:
    """Return a rendered file without its timestamps, to tell whether two say the same."""
    pattern = r'("(?:generated|checked)_at": ?)"[^"]*"|^(%s(?:\{.*\})? )\d+$' % CHECKED
    return re.sub(pattern, r"\1\2", rendered, flags=re.MULTILINE)


def file_name(host: str) -> str:
    """Return a file name for a host: it never leaves its directory, and no two hosts have the same."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", host)[:100]
    if plain and plain == host and not plain.startswith("."):
        return plain
    return "%s-%s" % (plain.lstrip(".") or "host", hashlib.sha256(host.encode("utf-8", "replace")).hexdigest()[:12])
