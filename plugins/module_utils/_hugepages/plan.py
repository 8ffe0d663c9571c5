# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hugetlb pools per page size and NUMA node: the declared ones compared with the host's, live and for the next boot.

Pages of 1 GiB that the running kernel cannot find are put on the kernel command line, where a boot finds them.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any, Callable, Sequence

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.files import FileSet, RenderedFile
from .._base.fs import Root
from .._base.paths import HUGEPAGES_RECORD as RECORD
from .._base.paths import HUGEPAGES_UNIT, HUGEPAGES_UNIT_NAME, LIBRARY
from .._base.undo import UndoStack
from .._cmdline.command_line import CommandLinePlan
from .._cmdline.words import holds
from .._host import systemd
from .._host.hugetlb import Pool, format_size, meminfo
from .._host.mounts import refuse_late, shown_mounts
from . import boot_files, originals, others
from .boot_parameters import GIGANTIC, OWNER, plan_command_line, sizes_of
from .declared import WantedPool, parse_pools
from .floor import parse_floor, shortage
from .leftovers import LeftOver, left_over, remove
from .originals import Counts
from .pools import PagePools


class PoolsPlan:
    """What one run does to the pools. Made from the host alone, so that check mode and the real run agree.

    The declared pools are the whole state: a pool that is recorded but no longer declared gets its original count back.
    After that it is left alone, like one that was never declared.
    """

    def __init__(
        self,
        root: Root,
        runner: Runner,
        pools: list[dict[str, Any]],
        persistent: bool = True,
        gone: Sequence[LeftOver] = (),
        host_memory: Any = None,
    ) -> None:
        """``gone`` are left-over files that somebody else removes before :meth:`apply`.

        ``host_memory`` is the size that the host keeps for itself, None for the usual one.
        """
        self._root, self._runner = root, runner
        self.host = PagePools(root)
        self.declared = parse_pools(self.host, pools)
        self._gone = list(gone)
        self._record = originals.read(root)
        self.targets = self._freed() + self.declared
        self.counts_before = {pool: self.host.persistent(pool) for pool, _count in self.targets}
        self._persistent = persistent
        self._refuse_more_than_total()
        self._shortage = shortage(self.host, dict(self.targets), parse_floor(host_memory))
        if self._shortage is not None and any(count > self.counts_before[pool] for pool, count in self.targets):
            raise self._shortage
        self._out_of_reach = self._foresee()  # and what they turn out to be
        self._wants_boot = self.declared if persistent else []
        refusals = refuse_late(root, (LIBRARY,)) if self._wants_boot else []
        if refusals:
            raise Refused(refusals)
        try:
            self.cmdline = self._plan_cmdline()
        except HostError as exc:
            lacking = sorted(pool.label for pool in self._out_of_reach)
            exc.evidence += [
                "needed for pages of %s, which the running kernel cannot find" % label for label in lacking
            ]
            raise
        self.changes = [
            wanted
            for wanted in self.targets
            if self.counts_before[wanted.pool] != wanted.pages and not self._waits(wanted)
        ]
        self.files = FileSet(root, self._files())
        self.left_over = self._left_over()
        self._refuse_impossible()

    def _refuse_more_than_total(self) -> None:
        for pool, count in self.targets:
            memory = self.host.memory(pool.node)
            if memory.total and count > self.counts_before[pool] and count * pool.size > memory.total:
                raise _short(pool, "needed %d MiB, MemTotal %d MiB" % (count * pool.size >> 20, memory.total >> 20))

    # --- pages that only a boot finds ---

    @property
    def boot_parameters(self) -> list[str]:
        """Return what reserves pages on the kernel command line."""
        return self.cmdline.wanted.parameters if self.cmdline.wanted is not None else []

    def _plan_cmdline(self) -> CommandLinePlan:
        return plan_command_line(self._root, self._runner, self._wants_boot, self._out_of_reach)

    def _foresee(self) -> set[Pool]:
        """Return the pools of large pages that the running kernel cannot fill even by moving pages."""
        short: set[Pool] = set()
        for node, need in self._needs().items():
            memory = self.host.memory(node)
            if memory.total and need > memory.free + memory.reclaimable:
                short |= {pool for pool, _count in self.declared if pool.node == node}
        return {pool for pool in short if pool.size >= GIGANTIC}

    def _needs(self, without: Sequence[Pool] = ()) -> dict[int | None, int]:
        """Return how many more bytes each node, or the host, has to provide."""
        needs: dict[int | None, int] = {}
        for pool, count in self.targets:
            if pool not in without:
                needs[pool.node] = needs.get(pool.node, 0) + (count - self.counts_before[pool]) * pool.size
        return needs

    def _waits(self, wanted: WantedPool) -> bool:
        """Whether a pool's missing pages come with the next boot, so that asking for them now is useless."""
        if wanted.pages <= self.counts_before[wanted.pool] or wanted.pool.size not in sizes_of(self.cmdline.wanted):
            return False
        if self.cmdline.wanted is not None and holds(self.cmdline.running, self.cmdline.wanted):
            return False  # this boot had it, and did not find them
        recorded = self.cmdline.record.owners.get(OWNER) == self.cmdline.wanted
        return recorded or wanted.pool in self._out_of_reach

    @property
    def reboot_required(self) -> bool:
        """Whether pages are missing that the next boot will provide."""
        return any(self._waits(wanted) for wanted in self.declared)

    @property
    def warnings(self) -> list[str]:
        """Whatever else on the host will replace the declared pages."""
        # A host that already runs with this is only warned.
        short = [] if self._shortage is None else [str(self._shortage)]
        return short + others.warnings(self._root, self.host, self.declared, bool(self.changes))

    def _freed(self) -> list[WantedPool]:
        """Return the recorded pools that are no longer declared, with their original counts."""
        sizes = {wanted.pool.size for wanted in self.declared if wanted.pool.node is None}
        declared = {wanted.pool for wanted in self.declared}
        return [
            WantedPool(Pool(size, node), count)
            for size, nodes in sorted(self._record.items())
            for node, count in nodes.items()
            if size not in sizes and Pool(size, node) not in declared and self._root.exists(Pool(size, node).directory)
        ]

    def _left_over(self) -> list[LeftOver]:
        """Return the files of ended DPDK processes whose pages must be freed so that a pool can shrink."""
        short = {
            pool.size
            for pool, count in self.changes
            if count < self.counts_before[pool] and count < self.host.in_use(pool)
        }
        mounts = [mount for mount in shown_mounts(self._root).values() if mount.page_size in short] if short else []
        return [file for file in left_over(self._root, mounts) if file not in self._gone]

    def _new_record(self) -> Counts:
        """Return the original counts of the declared pools: as recorded, else as they are now."""
        record: Counts = {}
        for pool in sorted({part for declared, _count in self.declared for part in self._parts(declared)}):
            known = self._record.get(pool.size, {})
            count = known[pool.node] if pool.node in known else self.host.persistent(pool)
            record.setdefault(pool.size, {})[pool.node] = count
        return record

    def _parts(self, pool: Pool) -> list[Pool]:
        """Return what a pool is made of: those of all nodes, if it is the host's."""
        return self.host.pools_of(pool.size) if pool.node is None else [pool]

    def _files(self) -> list[RenderedFile]:
        record = self._new_record()
        rendered = RenderedFile(RECORD, originals.render(record) if record else None)
        return [rendered, *boot_files.rendered(self._wants_boot)]

    def _refuse_impossible(self) -> None:
        """Refuse what cannot work before anything changes."""
        for pool, count in self.changes:
            used = self.host.in_use(pool) - sum(
                file.pages for file in [*self.left_over, *self._gone] if file.page_size == pool.size
            )
            if count < self.counts_before[pool] and count < used:
                raise HostError(
                    "pool_in_use",
                    "The pool %s cannot shrink to %d pages: %d are in use." % (pool.label, count, used),
                    evidence=["%s: %d pages, %d in use or reserved" % (pool.directory, self.counts_before[pool], used)],
                    remedy="Stop the processes that use them (grep -l huge /proc/*/numa_maps; files below the hugetlbfs"
                    " mounts keep pages too), then run again.",
                )
        for node, need in self._needs([wanted.pool for wanted in self.declared if self._waits(wanted)]).items():
            memory = self.host.memory(node)
            growing = [pool for pool, count in self.changes if pool.node == node and count > self.counts_before[pool]]
            if memory.total and growing and need > memory.free + memory.reclaimable:
                raise _short(growing[0], "%s: needed %d MiB more, %s" % (meminfo(node), need >> 20, memory))

    # --- the change ---

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.changes) or self.files.changed or self.cmdline.changed

    def before(self) -> dict[str, int]:
        """Return the counts that were found, by pool."""
        return {pool.label: count for pool, count in self.counts_before.items()}

    def after(self) -> dict[str, int]:
        """Return the counts after this run, by pool."""
        return {
            pool.label: self.counts_before[pool] if self._waits(WantedPool(pool, count)) else count
            for pool, count in self.targets
        }

    def diff(self) -> list[dict[str, str]]:
        """Return counts and files that differ in the form that Ansible prints."""
        files = [_difference(file.path, "%d pages, not in use\n" % file.pages, "") for file in self.left_over]
        counts = [
            _difference(pool.directory + "/nr_hugepages", "%d\n" % self.counts_before[pool], "%d\n" % count)
            for pool, count in self.changes
        ]
        return files + counts + self.files.diff() + self.cmdline.diff()

    def apply(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Do it, or leave the host as it was and raise."""
        # A killed run must leave what the next one needs: an original stays recorded until it is restored.
        known = originals.merge(self._record, self._new_record())
        recorded = FileSet(self._root, [RenderedFile(RECORD, originals.render(known))])
        undo = UndoStack()
        try:
            if self.declared:
                recorded.apply()
            remove(self._root, self.left_over)
            # Shrinking first frees memory for growing.
            for pool, count in sorted(self.changes, key=lambda wanted: wanted.pages > self.counts_before[wanted.pool]):
                undo.push("the pages of " + pool.label, partial(self._restore, pool))
                self._reserve_or_boot(pool, count, sleep)
            self.files.apply()
            self.cmdline.apply()
        except HostError as exc:
            problems = self.files.rollback() + undo.unwind()
            # If something is left, the next run needs the record of it.
            exc.evidence += problems or recorded.rollback()
            raise
        if HUGEPAGES_UNIT in self.files.changed_paths:
            systemd.reload_if_stale(self._root, self._runner, HUGEPAGES_UNIT_NAME)
        if not self.declared:
            for folder in (LIBRARY, os.path.dirname(RECORD)):
                self._root.remove_empty_dir(folder)

    def _restore(self, pool: Pool) -> None:
        self.host.restore(pool, self.counts_before[pool])

    def _reserve_or_boot(self, pool: Pool, count: int, sleep: Callable[[float], None]) -> None:
        try:
            self.host.reserve(pool, count, sleep)
        except HostError as exc:
            tried = self.cmdline.wanted is not None and holds(self.cmdline.running, self.cmdline.wanted)
            if pool.size < GIGANTIC or not self._persistent or tried:
                raise
            self._restore(pool)
            self._out_of_reach.add(pool)
            try:
                self.cmdline = self._plan_cmdline()
            except HostError as why:
                exc.evidence.append("not reserved at boot either: %s" % why.message)
                raise exc from why

    def report(self, predicted: bool) -> list[dict[str, Any]]:
        """Return the declared pools, as they are now or, in check mode, as they would be."""
        result = []
        for pool, count in self.declared:
            moved = predicted and not self._waits(WantedPool(pool, count))
            actual = count if moved else self.host.persistent(pool)
            free = self.host.free(pool) + (count - self.counts_before[pool] if moved else 0)
            result.append(
                {
                    "size": format_size(pool.size),
                    "size_bytes": pool.size,
                    "node": pool.node,
                    "requested": count,
                    "actual": actual,
                    "free": free,
                    "shortfall": max(0, count - actual),
                }
            )
        return result


def _difference(path: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def _short(pool: Pool, evidence: str) -> HostError:
    return HostError(
        "pool_shortfall",
        "The declared pages of %s need more memory than the host has free." % pool.label,
        evidence=[evidence],
        remedy="Declare fewer pages, or free memory.",
    )
