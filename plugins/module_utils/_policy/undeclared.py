# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Refuse to release everything of a kind only because its variable is missing."""

from __future__ import annotations

from typing import Any, Callable, Iterable, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import ACCESS_RECORD, BINDINGS, HUGEPAGES_RECORD, HUGETLB_MOUNTS_RECORD, ORIGINALS
from .._base.records import load_json

_MOST = 10  # addresses that a message names


class _Kind(NamedTuple):
    """One part of a declaration."""

    what: str
    variable: str
    nothing: str  # what declares none of it
    records: Callable[[Root], list[str]]


def _file(path: str) -> Callable[[Root], list[str]]:
    return lambda root: ["%s is there" % path] if root.exists(path) else []


def _entries(key: str) -> Callable[[Root], list[str]]:
    def records(root: Root) -> list[str]:
        found = ((path, _addresses((load_json(root, path) or {}).get(key) or [])) for path in (ORIGINALS, BINDINGS))
        return ["%s: %s" % (path, _some(addresses)) for path, addresses in found if addresses]

    return records


def _addresses(recorded: dict[str, Any] | list[dict[str, Any]]) -> list[str]:
    """Originals are kept by address, bindings as a list."""
    if isinstance(recorded, dict):
        return sorted(recorded)
    # Here only the presence of an entry counts; a damaged one is reported elsewhere.
    return sorted(str(entry.get("address")) for entry in recorded if isinstance(entry, dict))


def _some(addresses: list[str]) -> str:
    more = len(addresses) - _MOST
    return ", ".join(addresses[:_MOST]) + (" and %d more" % more if more > 0 else "")


_KINDS = {
    "devices": _Kind("devices", "noiommu_devices", "[]", _entries("devices")),
    "sriov": _Kind("numbers of virtual functions", "noiommu_sriov", "[]", _entries("sriov")),
    "hugepages": _Kind("pools of hugepages", "noiommu_hugepages", "[]", _file(HUGEPAGES_RECORD)),
    "hugepage_mounts": _Kind("mounts of hugetlbfs", "noiommu_hugepage_mounts", "[]", _file(HUGETLB_MOUNTS_RECORD)),
    "access": _Kind("grants", "noiommu_access", "{}", _file(ACCESS_RECORD)),
}
KINDS = tuple(_KINDS)


def undeclared(root: Root, names: Iterable[str]) -> list[HostError]:
    """Refuse each of these kinds of which something is recorded."""
    found = ((name, _KINDS[name].records(root)) for name in names)
    return [_refusal(name, _KINDS[name], seen) for name, seen in found if seen]


def _refusal(name: str, kind: _Kind, seen: list[str]) -> HostError:
    return HostError(
        "undeclared",
        "This host has %s from an earlier run, but %s (%s) is undefined or empty." % (kind.what, name, kind.variable),
        evidence=seen,
        remedy="Declare them. To release them all, write %s: %s. To roll everything back, write noiommu_state: absent"
        " or run the playbook baremetal.noiommu.rollback." % (kind.variable, kind.nothing),
    )
