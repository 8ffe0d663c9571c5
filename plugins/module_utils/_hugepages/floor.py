# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much memory the host keeps for itself: memory in a pool is lost to everything but the pool's users."""

from __future__ import annotations

from typing import Any, Mapping

from .._base.errors import HostError
from .._host.hugetlb import Pool, Pools, format_size, meminfo, parse_size

_MIB = 1 << 20
# The lowest floor that can be declared: the kernel and a shell over ssh need this much.
LEAST = 128 * _MIB
# The default floor is a share of all memory, within bounds. On several nodes, each has its own, as the kernel keeps
# the data of a node in memory of that node.
_PART, _ENOUGH_FOR_HOST, _USUAL_LEAST = 16, 4096 * _MIB, 256 * _MIB
_PART_OF_NODE, _ENOUGH_FOR_NODE, _LEAST_OF_NODE = 32, 1024 * _MIB, 64 * _MIB


def parse_floor(declared: Any) -> int | None:
    """Return the declared floor in bytes, None without one."""
    if declared in (None, ""):
        return None
    floor = parse_size(declared)
    if floor < LEAST:
        raise HostError(
            "host_memory",
            "A host needs more memory than that.",
            evidence=["declared: %s, the least is %s" % (declared, format_size(LEAST))],
            remedy="Declare at least %s." % format_size(LEAST),
        )
    return floor


def shortage(host: Pools, targets: Mapping[Pool, int], declared: int | None) -> HostError | None:
    """Return the error if the declared pools leave too little memory for the host or for a node."""
    total = host.memory(None).total
    floor = declared or max(_USUAL_LEAST, min(total // _PART, _ENOUGH_FOR_HOST))
    found = _below(host, None, total, _pooled(host, targets), floor)
    for node in host.nodes if len(host.nodes) > 1 else []:
        part = host.memory(node).total
        floor_of_node = max(_LEAST_OF_NODE, min(part // _PART_OF_NODE, _ENOUGH_FOR_NODE))
        if declared is not None:
            floor_of_node = min(floor_of_node, declared // len(host.nodes))
        found = found or _below(host, node, part, _pooled_of_node(host, targets, node), floor_of_node)
    return found


def _pooled(host: Pools, targets: Mapping[Pool, int]) -> int:
    return sum(size * _pages_of_size(host, targets, size) for size in host.sizes)


def _pages_of_size(host: Pools, targets: Mapping[Pool, int], size: int) -> int:
    whole = targets.get(Pool(size, None))
    if whole is not None:
        return whole
    return sum(targets[pool] if pool in targets else host.persistent(pool) for pool in host.pools_of(size))


def _pooled_of_node(host: Pools, targets: Mapping[Pool, int], node: int) -> int:
    """Return what a node has in pools. The kernel spreads a pool of the whole host by free memory."""
    pools = [Pool(size, node) for size in host.sizes if Pool(size, None) not in targets]
    return sum(pool.size * (targets[pool] if pool in targets else host.persistent(pool)) for pool in pools)


def _below(host: Pools, node: int | None, total: int, pooled: int, floor: int) -> HostError | None:
    if not total or total - pooled >= floor:
        return None
    place = "the host" if node is None else "NUMA node %d" % node
    return HostError(
        "host_memory",
        "The declared pages leave too little memory for %s itself." % place,
        evidence=[
            "%s: MemTotal %d MiB, in pools then %d MiB, left %d MiB, needed %d MiB"
            % (meminfo(node), total // _MIB, pooled // _MIB, (total - pooled) // _MIB, floor // _MIB)
        ],
        remedy="Declare fewer pages. If less is known to be enough, say how much with noiommu_host_memory"
        " (host_memory), at least %s." % format_size(LEAST),
    )
