# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is declared about access: the options of dataplane_access."""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, NamedTuple

from .._base.errors import HostError
from .._base.schema import Problem, refused
from .._host import capabilities
from .._host.units import full_name

GROUP_NAME = re.compile(r"^[a-z_][a-z0-9_-]{0,31}\Z")
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


def group_missing() -> HostError:
    """Return the refusal of grants that name no group."""
    return HostError(
        "group",
        "The grants name no group.",
        evidence=["group: not declared"],
        remedy="Declare the group that may use the devices; it is created where it is missing.",
    )


def group_misnamed(name: str) -> HostError:
    """Return the refusal of a name that no group can have."""
    return HostError(
        "group",
        "%r is not a group name." % name,
        evidence=["expected lower-case letters, digits, - and _, at most 32, not starting with a digit"],
        remedy="Choose another name.",
    )


def program_path(path: str) -> str:
    """Return a program's path, or refuse one that is not absolute."""
    if not path.startswith("/"):
        raise HostError(
            "binary",
            "%r is not an absolute path." % path,
            evidence=["binaries: path %s" % path],
            remedy="Give the program's full path, such as /usr/bin/dpdk-testpmd.",
        )
    return path


def asked_capabilities(name: str, profile: str, listed: list[str]) -> list[str]:
    """Return the capabilities that are listed for an application, or refuse the profile custom without any."""
    asked = capabilities.parse(listed)
    if profile == "custom" and not asked:
        raise HostError(
            "profile",
            "The profile custom of %s lists no capabilities." % name,
            evidence=["capabilities: none"],
            remedy="List its capabilities, or choose one of the profiles %s." % ", ".join(PROFILES[:-1]),
        )
    return asked


def problems(grants: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Yield everything that is wrong with grants on any host, once they fit ``GRANTS_SPEC``."""
    group = grants.get("group")
    if grants and not group:
        yield refused(group_missing(), where)
    elif group and not GROUP_NAME.match(str(group)):
        yield refused(group_misnamed(str(group)), where + ".group")
    try:
        parse_memlock(grants.get("memlock") or "unlimited")
    except HostError as exc:
        yield refused(exc, where + ".memlock")
    for option, key, check in (("services", "name", full_name), ("binaries", "path", program_path)):
        for number, entry in enumerate(grants.get(option) or ()):
            place = "%s.%s[%d]" % (where, option, number)
            try:
                check(str(entry[key]))
                profile = entry.get("profile") or grants.get("profile") or "dpdk"
                listed = entry.get("capabilities") or grants.get("capabilities") or []
                asked_capabilities(str(entry[key]), profile, _list(listed))
            except HostError as exc:
                yield refused(exc, place)


def _list(value: Any) -> list[str]:
    """Return a list of texts; Ansible makes a list of a single text."""
    return value.split(",") if isinstance(value, str) else [str(entry) for entry in value]
