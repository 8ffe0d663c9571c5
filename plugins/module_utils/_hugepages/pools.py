# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reserving hugetlb pages in the running kernel."""

from __future__ import annotations

from typing import Callable

from .._base.errors import HostError
from .._host.hugetlb import Pool, Pools

_RETRIES = 4
_PAUSE = 0.25


class PagePools(Pools):
    """The hugetlb pools of the host, whose counts can be changed."""

    def set(self, pool: Pool, count: int) -> None:
        """Ask the kernel for a number of pages; it may give fewer."""
        self._root.write_sysfs(pool.directory + "/nr_hugepages", "%d\n" % count)

    def compact(self) -> None:
        """Ask the kernel to compact scattered free pages into contiguous memory."""
        if self._root.exists("/proc/sys/vm/compact_memory"):
            self._root.write_sysfs("/proc/sys/vm/compact_memory", "1\n")

    def reserve(self, pool: Pool, count: int, sleep: Callable[[float], None]) -> None:
        """Reserve exactly this number of pages, or raise."""
        for attempt in range(_RETRIES):
            self.set(pool, count)
            got = self.persistent(pool)
            if got == count:
                return
            if attempt + 1 < _RETRIES:
                self.compact()
                sleep(_PAUSE)
        memory = self.memory(pool.node)
        raise HostError(
            "pool_shortfall",
            "The kernel gave %d of %d pages of %s; the counts were restored." % (got, count, pool.label),
            evidence=[
                "%s/nr_hugepages: %d after %d attempts with compaction" % (pool.directory, got, _RETRIES),
                "free memory: %d MiB, needed for the missing pages: %d MiB"
                % (memory.free >> 20, (count - got) * pool.size >> 20),
            ],
            remedy="Declare fewer pages, or free memory; memory is least fragmented right after a reboot.",
        )

    def restore(self, pool: Pool, count: int) -> None:
        """Restore the earlier number of pages."""
        if self.persistent(pool) != count:
            self.set(pool, count)
