# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find what later steps of a deploy would refuse, by the code of those steps, before anything changes."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.fs import Root


class LaterSteps(NamedTuple):
    """The declared pools, mounts and grants; None for what a deploy leaves alone."""

    hugepages: list[dict[str, Any]] | None = None
    hugepage_mounts: list[dict[str, Any]] | None = None
    access: dict[str, Any] | None = None
    host_memory: str | None = None


def refusals(root: Root, declared: LaterSteps, backend: str | None) -> list[HostError]:
    """Return everything that would stop a later step, each under the name of the variable that declares it."""
    groups = [str(declared.access["group"])] if declared.access and declared.access.get("group") else []
    return [
        *_under("noiommu_hugepages", declared.hugepages, lambda pools: _pools(root, pools, declared.host_memory)),
        *_under("noiommu_hugepage_mounts", declared.hugepage_mounts, lambda mounts: _mounts(root, mounts, groups)),
        *_under("noiommu_access", declared.access, lambda grants: _grants(root, grants, backend)),
    ]


def _under(name: str, declared: Any, check: Callable[[Any], Sequence[HostError]]) -> list[HostError]:
    if not declared:
        return []
    try:
        found = list(check(declared))
    except Refused as exc:
        found = exc.refusals
    except HostError as exc:
        found = [exc]
    for refusal in found:
        refusal.evidence.insert(0, "declared by %s" % name)
    return found


# Imported where something is declared: these packages are a third of what this module would load.


def _pools(root: Root, pools: list[dict[str, Any]], host_memory: str | None) -> list[HostError]:
    from .._hugepages.plan import PoolsPlan

    PoolsPlan(root, Runner(), pools, host_memory=host_memory)
    return []


def _mounts(root: Root, mounts: list[dict[str, Any]], groups_to_come: list[str]) -> list[HostError]:
    from .._hugepages.mounts import MountsPlan

    MountsPlan(root, Runner(), mounts, groups_to_come)
    return []


def _grants(root: Root, grants: dict[str, Any], backend: str | None) -> list[HostError]:
    from .._access.declared import Request, parse_memlock
    from .._access.plan import refusals as access_refusals

    given = {key: value for key, value in grants.items() if value is not None}
    if "memlock" in given:
        given["memlock"] = parse_memlock(given["memlock"])
    return access_refusals(root, Runner(), Request(**given), backend)
