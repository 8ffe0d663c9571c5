# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a host after a check, shared by the fleet report, the metrics and noiommu-verify."""

from __future__ import annotations

from typing import Any

STATES = ("ok", "drifted", "expired", "refused", "failed", "unreachable", "maintenance", "unknown")


def blank(state: str, reason: str) -> dict[str, Any]:
    """Return the record of a host about which nothing is known."""
    return {
        "state": state,
        "reason": reason,
        "drift": [],
        "backend": None,
        "kernel": None,
        "insecure": {
            "active": None,
            "since": None,
            "since_from": None,
            "until": None,
            "expired": False,
            "used_since_boot": None,
        },
        "taint": None,
        "devices": [],
        "hugepages": [],
        "reboot_pending": [],
        "keys_to_enrol": [],
    }


def reason(drift: list[dict[str, Any]], refusals: list[str]) -> str:
    """Return in one line why a host is not as declared; nothing if it is."""
    parts = refusals + ["%s: %s" % (entry["concern"], "; ".join(entry["changes"])) for entry in drift]
    return " | ".join(" ".join(part.split()) for part in parts)
