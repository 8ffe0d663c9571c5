# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hugetlb pools per page size and NUMA node: wanted against had, live and for the next boot.

Pages of 1 GiB that the running kernel cannot find are put on the kernel command line, where a boot finds them.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.files import FileSet, RenderedFile
from .._base.fs import Root
from .._base.paths import HUGEPAGES_RECORD as RECORD
from .._base.paths import HUGEPAGES_UNIT_NAME, LIBRARY
from .._base.records import dump_json, load_record
from .._cmdline.command_line import CommandLine, Record
from .._cmdline.words import holds
from .._host import kernels, sysctl, systemd
from .._host.hugetlb import NODES_DIR, SIZES_DIR, UNITS, Pool, Pools, format_size, meminfo
from .._host.mounts import refuse_late
from . import boot_files as boot
from .leftovers import LeftOver, left_over, mounts_of, remove

OWNER = "hugepages"  # of the parameters on the kernel command line

_RETRIES = 4
_PAUSE = 0.25

# Counts by page size (bytes), then by node; None is the host's total on which the kernel spreads as it likes.
Counts = Dict[int, Dict[Optional[int], int]]


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


class Wanted(NamedTuple):
    """A pool and how many pages it shall have."""

    pool: Pool
    count: int


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


class Host(Pools):
    """The hugetlb pools of the host, and the memory that they are made of."""

    def set(self, pool: Pool, count: int) -> None:
        """Ask the kernel for a number of pages; it may give fewer."""
        self._root.write_sysfs(pool.directory + "/nr_hugepages", "%d\n" % count)

    def compact(self) -> None:
        """Ask the kernel to make contiguous memory out of scattered free pages."""
        if self._root.exists("/proc/sys/vm/compact_memory"):
            self._root.write_sysfs("/proc/sys/vm/compact_memory", "1\n")

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


def parse_pools(host: Host, pools: list[dict[str, Any]]) -> list[Wanted]:
    """Check the declared pools against the host and each other."""
    wanted: list[Wanted] = []
    for one in pools:
        pool = Pool(parse_size(one["size"]), one.get("node"))
        if pool.size not in host.sizes:
            raise HostError(
                "pool",
                "This host has no hugetlb pages of size %s." % format_size(pool.size),
                evidence=["%s has: %s" % (SIZES_DIR, ", ".join(map(format_size, host.sizes)) or "nothing")],
                remedy="Declare one of these sizes."
                if host.sizes
                else "Boot a kernel with CONFIG_HUGETLBFS on a processor that has large pages.",
            )
        if pool.node is not None and pool not in host.pools_of(pool.size):
            raise HostError(
                "pool",
                "This host has no NUMA node %d." % pool.node,
                evidence=["%s has: %s" % (NODES_DIR, ", ".join("node%d" % node for node in host.nodes) or "no nodes")],
                remedy="Declare one of these nodes, or leave the node out.",
            )
        if one["count"] < 0:
            raise HostError(
                "pool",
                "A pool cannot have %d pages." % one["count"],
                evidence=["pool %s: count %d" % (pool.label, one["count"])],
                remedy="Declare 0 or more.",
            )
        wanted.append(Wanted(pool, one["count"]))
    _refuse_overlap(wanted)
    return wanted


def _refuse_overlap(wanted: list[Wanted]) -> None:
    seen: set[Pool] = set()
    for pool, _count in wanted:
        if pool in seen:
            raise HostError(
                "pool",
                "The pool %s is declared twice." % pool.label,
                evidence=["pools: %s" % ", ".join(one.pool.label for one in wanted)],
                remedy="Keep one of the two.",
            )
        seen.add(pool)
    for pool, _count in wanted:
        if pool.node is not None and Pool(pool.size, None) in seen:
            raise HostError(
                "pool",
                "The size %s is declared for the whole host and for a NUMA node." % format_size(pool.size),
                evidence=["pools: %s" % ", ".join(one.pool.label for one in wanted)],
                remedy="Declare this size either without a node, or for each node.",
            )


class Plan:
    """What one run shall do. Made from the host alone, so that check mode and the real run agree.

    The declared pools are the whole state: what was recorded as touched and is no longer declared goes back to the
    count it had at first, and is then nobody's, as what never was declared.
    """

    def __init__(
        self,
        root: Root,
        runner: Runner,
        pools: list[dict[str, Any]],
        persistent: bool = True,
        gone: Sequence[LeftOver] = (),
    ) -> None:
        """``gone`` are left-over files that somebody else removes before :meth:`apply`."""
        self._root, self._runner = root, runner
        self.host = Host(root)
        self.declared = parse_pools(self.host, pools)
        self._gone = list(gone)
        self._record = _read_record(root)
        given_back = self._given_back()
        self.targets = given_back + self.declared
        self.before = {pool: self.host.persistent(pool) for pool, _count in self.targets}
        self._persistent = persistent
        self._refuse_more_than_total()
        self._out_of_reach = self._foresee()  # and what is then tried in vain
        self._wants_boot = self.declared if persistent else []
        refusals = refuse_late(root, (LIBRARY,)) if self._wants_boot else []
        if refusals:
            raise Refused(refusals)
        try:
            self.cmdline = self._plan_cmdline()
        except HostError as exc:
            lacking = sorted(pool.label for pool in self._out_of_reach)
            exc.evidence += ["needed for pages of %s, which the running kernel cannot find" % one for one in lacking]
            raise
        self.changes = [one for one in self.targets if self.before[one.pool] != one.count and not self._waits(one)]
        self.files = FileSet(root, self._files())
        self.left_over = self._left_over()
        self._refuse_impossible()

    def _refuse_more_than_total(self) -> None:
        for pool, count in self.targets:
            memory = self.host.memory(pool.node)
            if memory.total and count > self.before[pool] and count * pool.size > memory.total:
                raise _short(pool, "needed %d MiB, MemTotal %d MiB" % (count * pool.size >> 20, memory.total >> 20))

    # --- pages that only a boot finds ---

    @property
    def boot_parameters(self) -> list[str]:
        """Return what reserves pages on the kernel command line."""
        return self.cmdline.wanted.parameters if self.cmdline.wanted is not None else []

    def _plan_cmdline(self) -> CommandLine:
        """Decide which sizes the kernel command line reserves: those it does already, and those out of reach now."""
        mine = Record.load(self._root).owners.get(OWNER)
        sizes = {one.pool.size for one in self._wants_boot if one.count}
        wanted = sizes & (boot.sizes_of(mine) | {pool.size for pool in self._out_of_reach})
        if not wanted:
            return CommandLine(self._root, self._runner, OWNER, None)
        line = CommandLine(self._root, self._runner, OWNER, boot.parameters(self._wants_boot, wanted))
        text = " ".join(next(iter(line.before.values()), []))
        for size in sorted(wanted & set(boot.reserved_by_others(text, mine))):
            raise HostError(
                "pool_boot",
                "Pages of %s are reserved on the kernel command line already, and not by this collection."
                % format_size(size),
                evidence=["kernel command line: %s" % text],
                remedy="Take hugepagesz= and hugepages= for this size off it, or change the count there.",
            )
        if any(one.pool.node is not None and one.pool.size in wanted for one in self._wants_boot) and (
            not boot.takes_nodes(self._root)
        ):
            raise HostError(
                "pool_boot",
                "This kernel takes no page counts by NUMA node on its command line.",
                evidence=["/proc/sys/kernel/osrelease: %s; needed 5.16" % kernels.running(self._root)],
                remedy="Declare the size without a node, or boot a newer kernel.",
            )
        return line

    def _foresee(self) -> set[Pool]:
        """Return the pools of large pages that the running kernel cannot fill, whatever it moves."""
        short: set[Pool] = set()
        for node, need in self._needs().items():
            memory = self.host.memory(node)
            if memory.total and need > memory.free + memory.reclaimable:
                short |= {pool for pool, _count in self.declared if pool.node == node}
        return {pool for pool in short if pool.size >= boot.GIGANTIC}

    def _needs(self, without: Sequence[Pool] = ()) -> dict[int | None, int]:
        """Return how many bytes more each node, or the host, has to give."""
        needs: dict[int | None, int] = {}
        for pool, count in self.targets:
            if pool not in without:
                needs[pool.node] = needs.get(pool.node, 0) + (count - self.before[pool]) * pool.size
        return needs

    def _waits(self, one: Wanted) -> bool:
        """Whether a pool's missing pages come with the next boot, and asking for them now is in vain."""
        if one.count <= self.before[one.pool] or one.pool.size not in boot.sizes_of(self.cmdline.wanted):
            return False
        if self.cmdline.wanted is not None and holds(self.cmdline.running, self.cmdline.wanted):
            return False  # this boot had it, and did not find them
        recorded = self.cmdline.record.owners.get(OWNER) == self.cmdline.wanted
        return recorded or one.pool in self._out_of_reach

    @property
    def reboot_required(self) -> bool:
        """Whether pages are missing that the next boot brings."""
        return any(self._waits(one) for one in self.declared)

    @property
    def warnings(self) -> list[str]:
        """Return what will take the place of the declared pages one day."""
        declared = [one for one in self.declared if one.pool.size == self.host.default_size]
        found = sysctl.setting(self._root, "vm.nr_hugepages") if declared else None
        total = str(sum(one.count for one in declared))
        spread = all(one.pool.node is None for one in declared) or len(self.host.nodes) < 2
        if found is None or (spread and found.value == total):
            return []
        return [
            "%s, line %d, sets vm.nr_hugepages to %s, but declared is %s. Whenever it is applied, as by"
            " `sysctl --system` or the upgrade of a package, it takes the place of the declared pages."
            " Remove the line%s; a file of the same name in /etc/sysctl.d takes the place of one elsewhere."
            % (
                *found,
                ", ".join("%s: %d" % (one.pool.label, one.count) for one in declared),
                ", or have it say %s" % total if spread else "",
            )
        ]

    def _given_back(self) -> list[Wanted]:
        """Return the recorded pools that are not declared any more, at the counts they had at first."""
        sizes = {one.pool.size for one in self.declared if one.pool.node is None}
        declared = {one.pool for one in self.declared}
        return [
            Wanted(Pool(size, node), count)
            for size, nodes in sorted(self._record.items())
            for node, count in nodes.items()
            if size not in sizes and Pool(size, node) not in declared and self._root.exists(Pool(size, node).directory)
        ]

    def _left_over(self) -> list[LeftOver]:
        """Return the files of ended DPDK processes whose pages the pools that shrink need back."""
        short = {
            pool.size for pool, count in self.changes if count < self.before[pool] and count < self.host.in_use(pool)
        }
        mounts = [one for one in mounts_of(self._root) if one.page_size in short] if short else []
        return [one for one in left_over(self._root, mounts) if one not in self._gone]

    def _new_record(self) -> Counts:
        """Return the original counts of the declared pools: as recorded, else as they are now."""
        record: Counts = {}
        for pool in sorted({one for declared, _count in self.declared for one in self._parts(declared)}):
            known = self._record.get(pool.size, {})
            count = known[pool.node] if pool.node in known else self.host.persistent(pool)
            record.setdefault(pool.size, {})[pool.node] = count
        return record

    def _parts(self, pool: Pool) -> list[Pool]:
        """Return what a pool is made of: those of all nodes, if it is the host's."""
        return self.host.pools_of(pool.size) if pool.node is None else [pool]

    def _files(self) -> list[RenderedFile]:
        record = self._new_record()
        return [RenderedFile(RECORD, _render_record(record) if record else None), *boot.rendered(self._wants_boot)]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.changes) or self.files.changed or self.cmdline.changed

    def diff(self) -> list[dict[str, str]]:
        """Return counts and files that differ in the form that Ansible prints."""
        counts = [
            {
                "before_header": pool.directory + "/nr_hugepages",
                "after_header": pool.directory + "/nr_hugepages",
                "before": "%d\n" % self.before[pool],
                "after": "%d\n" % count,
            }
            for pool, count in self.changes
        ]
        left_over_files = [
            {
                "before_header": one.path,
                "after_header": one.path,
                "before": "%d pages, nobody's\n" % one.pages,
                "after": "",
            }
            for one in self.left_over
        ]
        return left_over_files + counts + self.files.diff() + self.cmdline.diff()

    def _refuse_impossible(self) -> None:
        """Refuse what cannot work before anything changes."""
        for pool, count in self.changes:
            used = self.host.in_use(pool) - sum(
                one.pages for one in [*self.left_over, *self._gone] if one.page_size == pool.size
            )
            if count < self.before[pool] and count < used:
                raise HostError(
                    "pool_in_use",
                    "The pool %s cannot shrink to %d pages: %d are in use." % (pool.label, count, used),
                    evidence=["%s: %d pages, %d in use or reserved" % (pool.directory, self.before[pool], used)],
                    remedy="Stop the processes that use them (grep -l huge /proc/*/numa_maps; files below the hugetlbfs"
                    " mounts keep pages too), then run again.",
                )
        for node, need in self._needs([one.pool for one in self.declared if self._waits(one)]).items():
            memory = self.host.memory(node)
            growing = [pool for pool, count in self.changes if pool.node == node and count > self.before[pool]]
            if memory.total and growing and need > memory.free + memory.reclaimable:
                raise _short(growing[0], "%s: needed %d MiB more, %s" % (meminfo(node), need >> 20, memory))

    def apply(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Do it, or leave the host as it was and raise."""
        # A run killed half-way must leave what the next one needs: no original is forgotten before it is back.
        originals = FileSet(
            self._root, [RenderedFile(RECORD, _render_record(_merged(self._record, self._new_record())))]
        )
        touched: list[Pool] = []
        try:
            if self.declared:
                originals.apply()
            remove(self._root, self.left_over)
            # Shrinking first gives growing its memory.
            for pool, count in sorted(self.changes, key=lambda one: one.count > self.before[one.pool]):
                touched.append(pool)
                self._reach_or_boot(pool, count, sleep)
            self.files.apply()
            self.cmdline.apply()
        except HostError as exc:
            left = self._put_back(touched) + self.files.rollback()
            # Where something is left, the next run needs the record to know of it.
            exc.evidence += left or originals.rollback()
            raise
        if boot.UNIT in self.files.changed_paths:
            systemd.reload_if_stale(self._root, self._runner, HUGEPAGES_UNIT_NAME)
        if not self.declared:
            for folder in (os.path.dirname(boot.SCRIPT), os.path.dirname(RECORD)):
                self._root.remove_empty_dir(folder)

    def _reach_or_boot(self, pool: Pool, count: int, sleep: Callable[[float], None]) -> None:
        try:
            self._reach(pool, count, sleep)
        except HostError as exc:
            seen = self.cmdline.wanted is not None and holds(self.cmdline.running, self.cmdline.wanted)
            if pool.size < boot.GIGANTIC or not self._persistent or seen:
                raise
            self.host.set(pool, self.before[pool])
            self._out_of_reach.add(pool)
            try:
                self.cmdline = self._plan_cmdline()
            except HostError as why:
                exc.evidence.append("not reserved at boot either: %s" % why.message)
                raise exc from why

    def _put_back(self, touched: list[Pool]) -> list[str]:
        failed = []
        for pool in reversed(touched):
            if self.host.persistent(pool) == self.before[pool]:
                continue
            try:
                self.host.set(pool, self.before[pool])
            except HostError as exc:
                failed.append("not put back: %s" % exc.message)
        return failed

    def _reach(self, pool: Pool, count: int, sleep: Callable[[float], None]) -> None:
        for attempt in range(_RETRIES):
            self.host.set(pool, count)
            got = self.host.persistent(pool)
            if got == count:
                return
            if attempt + 1 < _RETRIES:
                self.host.compact()
                sleep(_PAUSE)
        memory = self.host.memory(pool.node)
        raise HostError(
            "pool_shortfall",
            "The kernel gave %d of %d pages of %s; the counts were put back." % (got, count, pool.label),
            evidence=[
                "%s/nr_hugepages: %d after %d attempts with compaction" % (pool.directory, got, _RETRIES),
                "free memory: %d MiB, needed for the missing pages: %d MiB"
                % (memory.free >> 20, (count - got) * pool.size >> 20),
            ],
            remedy="Declare fewer pages, or free memory; after a reboot there is the least in the way.",
        )

    @property
    def after(self) -> dict[Pool, int]:
        """Return the counts that the pools have after this run."""
        return {pool: self.before[pool] if self._waits(Wanted(pool, count)) else count for pool, count in self.targets}

    def report(self, predicted: bool) -> list[dict[str, Any]]:
        """Return the declared pools, as they are now or, in check mode, as they would be."""
        result = []
        for pool, count in self.declared:
            moved = predicted and not self._waits(Wanted(pool, count))
            actual = count if moved else self.host.persistent(pool)
            free = self.host.free(pool) + (count - self.before[pool] if moved else 0)
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

    def state(self, counts: dict[Pool, int]) -> dict[str, int]:
        """Return counts under names fit for a result."""
        return {pool.label: counts[pool] for pool in counts}


def _short(pool: Pool, evidence: str) -> HostError:
    return HostError(
        "pool_shortfall",
        "The declared pages of %s need more memory than there is." % pool.label,
        evidence=[evidence],
        remedy="Declare fewer pages, or free memory.",
    )


def _merged(first: Counts, second: Counts) -> Counts:
    return {size: {**second.get(size, {}), **first.get(size, {})} for size in sorted({*first, *second})}


def _read_record(root: Root) -> Counts:
    damage = "The record of the original page counts is damaged."
    remedy = "Remove %s if the original counts do not matter; today's counts are then taken for them." % RECORD
    return load_record(root, RECORD, _parse_record, damage, remedy) or {}


def _parse_record(stored: dict[str, Any]) -> Counts:
    return {
        int(size): {None if node == "host" else int(node): int(count) for node, count in nodes.items()}
        for size, nodes in stored["counts"].items()
    }


def _render_record(record: Counts) -> str:
    stored = {
        str(size): {"host" if node is None else str(node): count for node, count in nodes.items()}
        for size, nodes in record.items()
    }
    return dump_json({"counts": stored})
