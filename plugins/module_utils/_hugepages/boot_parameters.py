# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Large pages that can only be reserved at boot: their parameters on the kernel command line."""

from __future__ import annotations

import re
from typing import Iterable

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._cmdline.command_line import CommandLinePlan
from .._cmdline.record import CommandLineRecord
from .._cmdline.words import Parameters, split
from .._host import kernels
from .._host.hugetlb import Pool, format_size
from .declared import WantedPool
from .originals import Counts

OWNER = "hugepages"  # of the parameters on the kernel command line
GIGANTIC = 1 << 30
# Older kernels do not know hugepages=<node>:<count>.
_NODE_SYNTAX = (5, 16)


def plan_command_line(
    root: Root, runner: Runner, wanted: list[WantedPool], out_of_reach: Iterable[Pool]
) -> CommandLinePlan:
    """Decide which sizes the kernel command line reserves: those that are there already, and those that need a boot."""
    mine = CommandLineRecord.load(root).owners.get(OWNER)
    declared = {entry.pool.size for entry in wanted if entry.pages}
    sizes = declared & (sizes_of(mine) | {pool.size for pool in out_of_reach})
    if not sizes:
        return CommandLinePlan(root, runner, OWNER, None)
    line = CommandLinePlan(root, runner, OWNER, parameters(wanted, sizes))
    text = " ".join(next(iter(line.lines_before.values()), []))
    for size in sorted(sizes & set(reserved_by_others(text, mine))):
        raise HostError(
            "pool_boot",
            "Pages of %s are reserved on the kernel command line already, and not by this collection."
            % format_size(size),
            evidence=["kernel command line: %s" % text],
            remedy="Take hugepagesz= and hugepages= for this size off it, or change the count there.",
        )
    by_node = any(entry.pool.node is not None and entry.pool.size in sizes for entry in wanted)
    if by_node and not takes_nodes(root):
        raise HostError(
            "pool_boot",
            "This kernel does not accept page counts by NUMA node on its command line.",
            evidence=["/proc/sys/kernel/osrelease: %s; needed 5.16" % kernels.running(root)],
            remedy="Declare the size without a node, or boot a newer kernel.",
        )
    return line


def parameters(wanted: list[WantedPool], sizes: set[int]) -> Parameters:
    """Return the kernel parameters that reserve the pools of these sizes."""
    phrases = []
    for size in sorted(sizes):
        counts = {pool.node: count for pool, count in wanted if pool.size == size and count}
        if None in counts:
            text = "%d" % counts[None]
        else:
            text = ",".join("%d:%d" % pair for pair in sorted((node or 0, count) for node, count in counts.items()))
        if counts:
            phrases.append("hugepagesz=%dG hugepages=%s" % (size >> 30, text))
    return Parameters(phrases)


def sizes_of(declared: Parameters | None) -> set[int]:
    """Return the page sizes in a set made by :func:`parameters`."""
    phrases = declared.parameters if declared is not None else []
    return {int(match.group(1)) << 30 for match in map(re.compile(r"hugepagesz=(\d+)G").match, phrases) if match}


def reserved_by_others(line: str, own: Parameters | None) -> Counts:
    """Return what a command line reserves besides our own phrases; the kernel accepts one reservation per size."""
    for phrase in own.parameters if own is not None else []:
        line = (" %s " % line).replace(" %s " % phrase, " ")
    found: Counts = {}
    size = None
    for word in split(line):
        name, _equals, value = word.partition("=")
        if name in ("hugepagesz", "default_hugepagesz"):
            number = re.match(r"(\d+)([KMG])$", value.upper())
            size = int(number.group(1)) << {"K": 10, "M": 20, "G": 30}[number.group(2)] if number else None
        elif name == "hugepages" and size is not None:
            found[size] = {None: sum(int(part) for part in re.findall(r"(?:^|[:,])(\d+)(?=,|$)", value))}
    return found


def takes_nodes(root: Root) -> bool:
    """Whether the running kernel accepts page counts by node on its command line."""
    numbers = re.match(r"(\d+)\.(\d+)", kernels.running(root))
    return numbers is not None and (int(numbers.group(1)), int(numbers.group(2))) >= _NODE_SYNTAX
