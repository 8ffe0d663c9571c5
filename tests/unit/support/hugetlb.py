# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hugetlb pools that react like the kernel, and runs of the module on them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.modules import hugepages
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

M2, G1 = 2 << 20, 1 << 30


class HugetlbRoot(Root):
    """Answers writes of page counts as the kernel does, with a limited supply of contiguous memory."""

    def __init__(self, tree: Tree, nodes: int = 2, sizes: tuple[int, ...] = (M2, G1)) -> None:
        super().__init__(str(tree.base))
        self.tree = tree
        self.nodes = nodes
        self.limit: dict[tuple[int, int], int] = {}
        self.after_compaction: dict[tuple[int, int], int] = {}
        self.refuse: str | None = None
        self.writes: list[str] = []
        self.free_mib = {None: 8192, **dict.fromkeys(range(nodes), 4096)}
        self.pages = {(size, node): [0, 0] for size in sizes for node in range(nodes)}  # total, used
        tree.file("/proc/sys/vm/compact_memory")
        self.show()

    def set(self, size: int, node: int, total: int, used: int = 0) -> None:
        self.pages[size, node] = [total, used]
        self.show()

    def show(self) -> None:
        self.tree.file(
            "/proc/meminfo",
            "MemTotal: 16777216 kB\nMemFree: %d kB\nSwapFree: 1024 kB\nHugepagesize:       2048 kB"
            % (self.free_mib[None] * 1024),
        )
        for node in range(self.nodes):
            lines = ("MemTotal: 8388608", "MemFree: %d" % (self.free_mib[node] * 1024), "Inactive(file): 2048")
            text = "".join("Node %d %s kB\n" % (node, line) for line in lines)
            self.tree.file("/sys/devices/system/node/node%d/meminfo" % node, text)
        for size in {size for size, _node in self.pages}:
            per_node = [self.pages[size, node] for node in range(self.nodes)]
            total = [sum(counts) for counts in zip(*per_node)]
            places = [("/sys/kernel/mm/hugepages", total)]
            places += [("/sys/devices/system/node/node%d/hugepages" % n, counts) for n, counts in enumerate(per_node)]
            for base, (count, used) in places:
                where = "%s/hugepages-%dkB/" % (base, size // 1024)
                self.tree.file(where + "nr_hugepages", str(count))
                self.tree.file(where + "free_hugepages", str(count - used))
                self.tree.file(where + "surplus_hugepages", "0")
            self.tree.file("/sys/kernel/mm/hugepages/hugepages-%dkB/resv_hugepages" % (size // 1024), "0")

    def write_sysfs(self, path: str, value: str) -> None:
        self.writes.append(path)
        if path == "/proc/sys/vm/compact_memory":
            self.limit.update(self.after_compaction)
            return
        if self.refuse and self.refuse in path:
            raise HostError("kernel_write", "The kernel refused.", errno=22)
        size = int(path.split("hugepages-")[1].split("kB")[0]) * 1024
        count = int(value)
        if "/node/" in path:
            shares = {int(path.split("/node/node")[1].split("/")[0]): count}
        else:
            shares = {node: count // self.nodes + (node < count % self.nodes) for node in range(self.nodes)}
        for node, share in shares.items():
            self.pages[size, node][0] = min(share, self.limit.get((size, node), share))
        self.show()

    def counts(self) -> dict[tuple[int, int], int]:
        return {pool: total for pool, (total, _used) in self.pages.items() if total}


class Idle(Runner):
    """Takes whatever is to be run."""

    def run(self, *argv: str) -> RunResult:
        return RunResult(0, "", "")


def declaration(**params: Any) -> dict[str, Any]:
    return {
        "pools": [],
        "persistent": True,
        "mounts": None,
        "state": "present",
        "groups_to_come": [],
        "host_memory": None,
        **params,
    }


def run(
    root: Root,
    pools: list[dict[str, Any]] | None = None,
    check: bool = False,
    runner: Runner | None = None,
    **params: Any,
) -> dict[str, Any]:
    module = FakeModule(declaration(pools=pools or [], **params), check)
    return hugepages.hugepages(module, root, runner or Idle())


def refused(root: Root, *pools: dict[str, Any], **params: Any) -> HostError:
    """Return the error, after seeing that real run and check mode raise it alike and that nothing changed."""
    before = root.tree.content()
    with pytest.raises(HostError) as caught:
        run(root, list(pools), check=True, **params)
    with pytest.raises(HostError) as again:
        run(root, list(pools), **params)
    assert str(again.value) == str(caught.value)
    assert root.tree.content() == before
    assert caught.value.evidence and caught.value.remedy
    return caught.value


# --- what sysctl does to the pools ---


def warned(root: HugetlbRoot, *pools: dict[str, Any]) -> list[str]:
    """Return the warnings, after seeing that check mode, the real run and a second one have the same."""
    runs = []
    for check in (True, False, False):
        module = FakeModule(declaration(pools=list(pools)), check)
        hugepages.hugepages(module, root, Idle())
        runs.append(module.warnings)
    assert runs[0] == runs[1] == runs[2]
    return runs[0]
