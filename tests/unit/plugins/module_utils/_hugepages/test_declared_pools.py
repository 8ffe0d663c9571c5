# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declarations that are refused, and pages that only the next boot finds."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.hugetlb import Pools
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.plan import RECORD, PoolsPlan
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import FakeBoot, FakeGrub
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb import (
    G1,
    M2,
    HugetlbRoot,
    Idle,
    refused,
    run,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def test_reserved_pages_count_as_used(root: HugetlbRoot, tree: Tree) -> None:
    run(root, [{"size": "2M", "count": 8}])
    tree.file("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "7")
    assert "7 are in use" in refused(root, {"size": "2M", "count": 6}).message


def test_surplus_pages_do_not_count(root: HugetlbRoot, tree: Tree) -> None:
    run(root, [{"size": "2M", "count": 8}])
    tree.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "10")
    tree.file("/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages", "2")
    assert not run(root, [{"size": "2M", "count": 8}])["changed"]


def test_an_unknown_size_lists_those_there_are(root: HugetlbRoot) -> None:
    assert refused(root, {"size": "16M", "count": 1}).evidence == ["/sys/kernel/mm/hugepages has: 2M, 1G"]


def test_a_kernel_without_hugetlb(tree: Tree) -> None:
    with pytest.raises(HostError) as caught:
        PoolsPlan(tree.root, Idle(), [{"size": "2M", "count": 1}])
    assert "CONFIG_HUGETLBFS" in caught.value.remedy


def test_an_unknown_node_lists_those_there_are(root: HugetlbRoot) -> None:
    assert refused(root, {"size": "2M", "count": 1, "node": 7}).evidence[0].endswith("node0, node1")


def test_a_negative_count(root: HugetlbRoot) -> None:
    assert "-1" in refused(root, {"size": "2M", "count": -1}).message


@pytest.mark.parametrize("node", [None, 0])
def test_a_pool_declared_twice(root: HugetlbRoot, node: int | None) -> None:
    error = refused(root, {"size": "2M", "count": 1, "node": node}, {"size": "2048K", "count": 2, "node": node})
    assert "declared twice" in error.message


def test_a_size_declared_for_host_and_node(root: HugetlbRoot) -> None:
    error = refused(root, {"size": "2M", "count": 1}, {"size": "2M", "count": 2, "node": 0})
    assert "whole host and for a NUMA node" in error.message


def test_a_damaged_record_is_refused(root: HugetlbRoot, tree: Tree) -> None:
    tree.file(RECORD, "{}")
    assert refused(root, {"size": "2M", "count": 1}).code == "record"


def test_a_recorded_node_that_is_gone_is_forgotten(root: HugetlbRoot, tree: Tree) -> None:
    tree.file(RECORD, json.dumps({"version": 1, "counts": {str(M2): {"0": 0, "9": 5}}}))
    run(root, state="absent")
    assert not tree.root.exists(RECORD)


def test_a_kernel_without_numa(tree: Tree) -> None:
    root = HugetlbRoot(tree, nodes=1)
    tree.remove("/sys/devices/system/node")
    assert [pool["node"] for pool in Pools(root).report()] == [None, None]


# --- memory that cannot be had now ---


def test_a_shortfall_that_can_be_foreseen_is_refused_with_the_nodes_memory(root: HugetlbRoot) -> None:
    root.free_mib[1] = 10
    root.show()
    error = refused(root, {"size": "2M", "count": 8, "node": 1})
    assert error.code == "pool_shortfall"
    assert error.evidence == [
        "/sys/devices/system/node/node1/meminfo: needed 16 MiB more, 10 MiB free,"
        " at most 3 MiB more by dropping caches and swapping"
    ]


def test_what_another_pool_gives_back_counts_as_free(root: HugetlbRoot) -> None:
    run(root, [{"size": "1G", "count": 1, "node": 1}])
    root.free_mib[1] = 10
    root.show()
    run(root, [{"size": "1G", "count": 0, "node": 1}, {"size": "2M", "count": 512, "node": 1}])
    assert root.counts() == {(M2, 1): 512}


TWO_ON_NODE_1 = [{"size": "1G", "count": 2, "node": 1}]


def reboot(root: HugetlbRoot, boot: FakeBoot, found: int = 2) -> None:
    """Boot: the kernel finds so many of the large pages."""
    boot.boot()
    root.free_mib[1] = 4096
    root.set(G1, 1, found)


def test_large_pages_without_room_come_with_the_next_boot(root: HugetlbRoot, grub: FakeGrub, tree: Tree) -> None:
    before = tree.content(), grub.next
    predicted = run(root, TWO_ON_NODE_1, check=True, runner=grub)
    assert (tree.content(), grub.next) == before and root.writes == []
    real = run(root, TWO_ON_NODE_1, runner=grub)
    assert real == predicted
    assert real["changed"] and real["reboot_required"] and root.counts() == {} and root.writes == []
    assert real["boot_parameters"] == ["hugepagesz=1G hugepages=1:2"]
    assert real["after"] == {"1G on NUMA node 1": 0} and real["pools"][0]["shortfall"] == 2
    assert grub.next.endswith("hugepagesz=1G hugepages=1:2")
    again = run(root, TWO_ON_NODE_1, runner=grub)
    assert not again["changed"] and again["reboot_required"] and root.writes == []
    reboot(root, grub)
    done = run(root, TWO_ON_NODE_1, runner=grub)
    assert not done["changed"] and not done["reboot_required"] and done["pools"][0]["shortfall"] == 0
    grub.ran.clear()
    assert run(root, runner=grub, state="absent")["changed"]
    assert grub.ran == ["update-grub"] and "hugepages" not in grub.next and root.counts() == {}


def test_large_pages_that_were_tried_in_vain_come_with_the_next_boot(root: HugetlbRoot, grub: FakeGrub) -> None:
    root.free_mib[1] = 4096
    root.show()
    root.limit[G1, 1] = 1
    pools = [*TWO_ON_NODE_1, {"size": "1G", "count": 1, "node": 0}]
    done = run(root, pools, runner=grub)
    assert done["reboot_required"] and done["boot_parameters"] == ["hugepagesz=1G hugepages=0:1,1:2"]
    assert root.counts() == {(G1, 0): 1} and done["after"] == {"1G on NUMA node 0": 1, "1G on NUMA node 1": 0}


def test_large_pages_that_a_boot_did_not_bring_are_a_failure(root: HugetlbRoot, grub: FakeGrub) -> None:
    run(root, TWO_ON_NODE_1, runner=grub)
    reboot(root, grub, found=1)
    root.limit[G1, 1] = 1
    with pytest.raises(HostError, match="gave 1 of 2 pages of 1G on NUMA node 1"):
        run(root, TWO_ON_NODE_1, runner=grub)


def test_another_count_is_tried_now_and_kept_for_the_boot(root: HugetlbRoot, grub: FakeGrub) -> None:
    run(root, TWO_ON_NODE_1, runner=grub)
    reboot(root, grub)
    done = run(root, [{"size": "1G", "count": 3, "node": 1}], runner=grub)
    assert root.counts() == {(G1, 1): 3} and not done["reboot_required"]
    assert grub.next.endswith("hugepages=1:3")
    assert not run(root, [{"size": "1G", "count": 3, "node": 1}], runner=grub)["changed"]


def test_a_failing_boot_loader_leaves_everything_as_it_was(root: HugetlbRoot, grub: FakeGrub, tree: Tree) -> None:
    before = tree.content(), grub.next
    grub.run = lambda *argv: RunResult(1, "", "No space left on device")  # type: ignore[method-assign]
    with pytest.raises(HostError, match="No space left on device"):
        run(root, TWO_ON_NODE_1, runner=grub)
    assert (tree.content(), grub.next) == before


def test_no_boot_loader_to_ask_is_explained(root: HugetlbRoot, grub: FakeGrub, tree: Tree) -> None:
    tree.remove("/usr/sbin/update-grub")
    error = refused(root, *TWO_ON_NODE_1, runner=grub)
    assert error.evidence[-1] == "needed for pages of 1G on NUMA node 1, which the running kernel cannot find"


def test_not_persistent_never_touches_the_command_line(root: HugetlbRoot, grub: FakeGrub) -> None:
    error = refused(root, *TWO_ON_NODE_1, runner=grub, persistent=False)
    assert error.code == "pool_shortfall" and "1500 MiB free" in error.evidence[0]


def test_a_reservation_of_somebody_else_is_not_touched(root: HugetlbRoot, tree: Tree, grub: FakeGrub) -> None:
    grub = FakeGrub(tree, linux="hugepagesz=2M hugepages=8 default_hugepagesz=1G hugepages=4")
    error = refused(root, *TWO_ON_NODE_1, runner=grub)
    assert error.code == "pool_boot" and "hugepages=4" in error.evidence[0]


def test_an_old_kernel_takes_no_counts_by_node(root: HugetlbRoot, tree: Tree, grub: FakeGrub) -> None:
    tree.file("/proc/sys/kernel/osrelease", "5.14.0-570.el9.x86_64")
    assert "needed 5.16" in refused(root, *TWO_ON_NODE_1, runner=grub).evidence[0]
    root.free_mib[None] = 100
    root.show()
    done = run(root, [{"size": "1G", "count": 2}], runner=grub)
    assert done["boot_parameters"] == ["hugepagesz=1G hugepages=2"]
