# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is declared about access: the options of dataplane_access."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base.errors import HostError

PROFILES = ("dpdk", "spdk", "ovs", "custom")
_PROFILE = {"type": "str", "choices": list(PROFILES)}
_CAPABILITIES = {"type": "list", "elements": "str"}
# The options by which grants are declared, for every module that takes them.
GRANTS_SPEC: dict[str, Any] = {
    "group": {"type": "str"},
    "gid": {"type": "int"},
    "users": {"type": "list", "elements": "str", "default": []},
    "memlock": {"type": "str", "default": "unlimited"},
    "hugetlbfs": {"type": "bool", "default": True},
    "services": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "profile": _PROFILE,
            "capabilities": _CAPABILITIES,
        },
    },
    "binaries": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "profile": _PROFILE,
            "capabilities": _CAPABILITIES,
        },
    },
    "profile": {**_PROFILE, "default": "dpdk"},
    "capabilities": {**_CAPABILITIES, "default": []},
}


class Request(NamedTuple):
    """What is declared. Without a group, everything is revoked."""

    group: str | None = None
    gid: int | None = None
    users: list[str] = []
    memlock: str = "unlimited"
    hugetlbfs: bool = True
    services: list[dict[str, Any]] = []
    binaries: list[dict[str, Any]] = []
    profile: str = "dpdk"
    capabilities: list[str] = []
    backend: str = "auto"
    accept_unsafe: bool = False


def parse_memlock(text: Any) -> str:
    """Return ``unlimited`` or a number of bytes."""
    value = str(text).strip()
    if value in ("unlimited", "-1"):
        return "unlimited"
    if not value.isdigit() or int(value) < 1024:
        raise HostError(
            "memlock",
            "%r is not an amount of locked memory." % (text,),
            evidence=["expected `unlimited` or a number of bytes, at least 1024"],
            remedy="Use unlimited, or the bytes of hugetlb memory that the application maps.",
        )
    return value
