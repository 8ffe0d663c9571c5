# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices of a simulated host, and the codes of its refusals."""

from __future__ import annotations

from typing import Any

NIC = "0000:04:00.0"
DISK = "0000:05:00.0"
MAC = "52:54:00:00:00:04"


def codes(result: dict[str, Any]) -> list[str]:
    for refusal in result["verdict"]["refusals"]:
        assert refusal["message"] and refusal["evidence"] and refusal["remedy"]
    return [refusal["code"] for refusal in result["verdict"]["refusals"]]
