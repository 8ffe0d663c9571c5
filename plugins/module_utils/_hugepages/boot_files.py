# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pools at every boot: a unit that asks for them early, node by node, and fails visibly where it gets fewer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .._base.files import HEADER, RenderedFile
from .._base.fs import Root
from .._base.paths import HUGEPAGES_SCRIPT as SCRIPT
from .._base.paths import HUGEPAGES_UNIT as UNIT
from .._base.paths import HUGEPAGES_WANTS as WANTS
from .._cmdline.words import Parameters, split
from .._host import kernels

if TYPE_CHECKING:
    from .plan import Counts, Wanted

GIGANTIC = 1 << 30
# Before, the kernel does not know hugepages=<node>:<count>.
_NODE_SYNTAX = (5, 16)


# A shell and no Python: it runs before anything else has scattered the memory.
_SCRIPT = r"""
failed=0

reserve() {
    name=$1 pool=$2/nr_hugepages count=$3 meminfo=$4 got=none
    for attempt in 1 2 3 4; do
        echo "$count" > "$pool" || break
        read -r got < "$pool"
        [ "$got" = "$count" ] && break
        echo 1 > /proc/sys/vm/compact_memory
        sleep 0.25
    done
    if [ "$got" = "$count" ]; then
        echo "$name: $got pages"
    else
        echo "$name: SHORTFALL, $got of $count pages; $(grep -h MemFree: "$meminfo")"
        failed=1
    fi
}

"""

# Before sysinit.target: nothing else has taken and scattered the memory yet. After sysctl, whose files may set the
# number of pages as well.
_UNIT = """[Unit]
Description=Reserve the declared hugetlb pages
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
DefaultDependencies=no
RequiresMountsFor=/usr/local/lib/noiommu
After=systemd-sysctl.service
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=%s

[Install]
WantedBy=multi-user.target
"""


def rendered(wanted: list[Wanted]) -> list[RenderedFile]:
    """Return all files as they shall be; none of them shall exist if nothing is wanted."""
    script = "#!/bin/sh\n" + HEADER + _SCRIPT
    for pool, count in wanted:
        script += "reserve '%s' %s %d %s\n" % (pool.label, pool.directory, count, pool.meminfo)
    script += "exit $failed\n"
    return [
        RenderedFile(SCRIPT, script if wanted else None, 0o755),
        RenderedFile(UNIT, HEADER + _UNIT % SCRIPT if wanted else None),
        RenderedFile(WANTS, UNIT if wanted else None, link=True),
    ]


def parameters(wanted: list[Wanted], sizes: set[int]) -> Parameters:
    """Return what reserves the pools of these sizes on the kernel command line."""
    phrases = []
    for size in sorted(sizes):
        counts = {pool.node: count for pool, count in wanted if pool.size == size and count}
        if None in counts:
            text = "%d" % counts[None]
        else:
            text = ",".join("%d:%d" % pair for pair in sorted(counts.items(), key=lambda one: one[0] or 0))
        if counts:
            phrases.append("hugepagesz=%dG hugepages=%s" % (size >> 30, text))
    return Parameters(phrases)


def sizes_of(declared: Parameters | None) -> set[int]:
    """Return the page sizes that a set made by :func:`parameters` is about."""
    phrases = declared.parameters if declared is not None else []
    return {int(match.group(1)) << 30 for match in map(re.compile(r"hugepagesz=(\d+)G").match, phrases) if match}


def reserved_by_others(line: str, own: Parameters | None) -> Counts:
    """Return what a command line reserves besides our own phrases; the kernel takes one reservation per size."""
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
    """Whether the running kernel takes page counts by node on its command line."""
    numbers = re.match(r"(\d+)\.(\d+)", kernels.running(root))
    return numbers is not None and (int(numbers.group(1)), int(numbers.group(2))) >= _NODE_SYNTAX
