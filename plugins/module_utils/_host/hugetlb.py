# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hugetlb pools that the kernel has, and the memory that they are made of."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.sizes import UNITS

SIZES_DIR = "/sys/kernel/mm/hugepages"
NODES_DIR = "/sys/devices/system/node"


def format_size(size: int) -> str:
    """Return a page size as people write it."""
    for unit in ("G", "M", "K"):
        if size % UNITS[unit] == 0:
            return "%d%s" % (size // UNITS[unit], unit)
    return str(size)


def parse_size(text: Any) -> int:
    """Return the bytes of a size such as 2M, 1G, 1GiB, 2048kB or 2097152."""
    match = re.match(r"^(\d+)\s*([KMG]?)(?:i?B)?$", str(text).strip(), re.IGNORECASE)
    if match is None:
        raise HostError(
            "pool",
            "%r is not a page size." % (text,),
            evidence=["expected a number of bytes or a number with K, M or G"],
            remedy="Write the size as 2M or 1G.",
        )
    return int(match.group(1)) * UNITS[match.group(2).upper()]


def meminfo(node: int | None) -> str:
    """Return where the kernel shows the memory of the host or of one node."""
    return "/proc/meminfo" if node is None else "%s/node%d/meminfo" % (NODES_DIR, node)


class Memory(NamedTuple):
    """The memory of the host or of one node, in bytes."""

    total: int
    free: int
    reclaimable: int  # the most that the kernel can free by dropping caches and swapping

    def __str__(self) -> str:
        return "%d MiB free, at most %d MiB more by dropping caches and swapping" % (
            self.free >> 20,
            self.reclaimable >> 20,
        )


class Pool(NamedTuple):
    """The pages of one size, of one node or of the whole host."""

    size: int
    node: int | None

    @property
    def directory(self) -> str:
        """Where the kernel shows and takes this pool's counts."""
        base = SIZES_DIR if self.node is None else "%s/node%d/hugepages" % (NODES_DIR, self.node)
        return "%s/hugepages-%dkB" % (base, self.size // 1024)

    @property
    def meminfo(self) -> str:
        """Where the kernel shows the memory that this pool comes from."""
        return meminfo(self.node)

    @property
    def label(self) -> str:
        """How messages name it."""
        return "%s%s" % (format_size(self.size), "" if self.node is None else " on NUMA node %d" % self.node)


def persistent(root: Root, directory: str) -> int:
    """Return the pages that the pool keeps; surplus pages go away by themselves."""
    return (root.read_int(directory, "nr_hugepages") or 0) - (root.read_int(directory, "surplus_hugepages") or 0)


class Pools:
    """All pools of the host, read only."""

    def __init__(self, root: Root) -> None:
        self._root = root
        names = (re.match(r"^hugepages-(\d+)kB$", name) for name in root.listdir(SIZES_DIR))
        self.sizes = sorted(int(match.group(1)) * 1024 for match in names if match)
        nodes = (re.match(r"^node(\d+)$", name) for name in root.listdir(NODES_DIR))
        self.nodes = sorted(int(match.group(1)) for match in nodes if match)

    def persistent(self, pool: Pool) -> int:
        """Return the pages that a pool keeps."""
        return persistent(self._root, pool.directory)

    def free(self, pool: Pool) -> int:
        """Return the pages that are not in use, including reserved ones."""
        return self._read(pool, "free_hugepages")

    def in_use(self, pool: Pool) -> int:
        """Return the pages that are mapped, or promised to a mapping; reservations exist per host only."""
        reserved = 0 if pool.node is not None else self._read(pool, "resv_hugepages")
        return self._read(pool, "nr_hugepages") - self.free(pool) + reserved

    def _read(self, pool: Pool, name: str) -> int:
        return self._root.read_int(pool.directory, name) or 0

    def pools_of(self, size: int) -> list[Pool]:
        """Return the finest pools the kernel has for a size: one a node, or the host's."""
        by_node = [Pool(size, node) for node in self.nodes]
        by_node = [pool for pool in by_node if self._root.exists(pool.directory)]
        return by_node or [Pool(size, None)]

    @property
    def default_size(self) -> int:
        """Return the size of the pages that vm.nr_hugepages counts."""
        found = re.search(r"^Hugepagesize:\s+(\d+) kB", self._root.read_text("/proc/meminfo") or "", re.MULTILINE)
        return int(found.group(1)) * 1024 if found else 0

    def memory(self, node: int | None) -> Memory:
        """Return the memory of the host or of one node."""
        pattern = r"(\w+(?:\(file\))?):\s+(\d+) kB"
        text = self._root.read_text(meminfo(node)) or ""
        found = {key: int(value) * 1024 for key, value in re.findall(pattern, text)}
        swap = re.search(r"SwapFree:\s+(\d+) kB", self._root.read_text("/proc/meminfo") or "")
        caches = sum(found.get(key, 0) for key in ("Active(file)", "Inactive(file)", "SReclaimable"))
        return Memory(
            found.get("MemTotal", 0),
            found.get("MemFree", 0),
            caches + (int(swap.group(1)) * 1024 if swap else 0),
        )

    def report(self) -> list[dict[str, Any]]:
        """Return every pool: the host's total of each size, then each node's."""
        pools = [Pool(size, None) for size in self.sizes]
        pools += [pool for size in self.sizes for pool in self.pools_of(size) if pool.node is not None]
        return [
            {
                "size": format_size(pool.size),
                "size_bytes": pool.size,
                "node": pool.node,
                "count": self.persistent(pool),
                "free": self.free(pool),
                "in_use": self.in_use(pool),
            }
            for pool in pools
        ]
