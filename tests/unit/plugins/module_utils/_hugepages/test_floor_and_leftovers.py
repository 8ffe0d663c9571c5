# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The memory that the host keeps, and pages that an ended DPDK left behind."""

from __future__ import annotations

import fcntl
import os
import signal

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.hugetlb import Pool, Pools
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.floor import shortage
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.plan import PoolsPlan
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import FakeGrub
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb import (
    G1,
    M2,
    HugetlbRoot,
    Idle,
    refused,
    run,
    warned,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

# --- what the host keeps for itself ---


@pytest.mark.parametrize("where", [None, 0])
def test_nothing_left_for_the_host_is_refused(root: HugetlbRoot, grub: FakeGrub, where: int | None) -> None:
    """Also what would be on the kernel command line: the host would not come back."""
    count = 16 if where is None else 8
    error = refused(root, {"size": "1G", "count": count, "node": where}, runner=grub)
    place = "the host" if where is None else "NUMA node 0"
    assert error.code == "host_memory" and error.message.endswith("too little memory for %s itself." % place)
    assert "left 0 MiB, needed %d MiB" % (1024 if where is None else 256) in error.evidence[0]
    assert root.writes == [] and "hugepages" not in grub.next


def test_pools_of_all_sizes_and_of_others_count(root: HugetlbRoot) -> None:
    root.set(M2, 0, 3 * 512)  # 3 GiB that somebody else reserved
    root.free_mib = {None: 16384, 0: 8192, 1: 8192}
    root.show()
    error = refused(root, {"size": "1G", "count": 6, "node": 1}, {"size": "1G", "count": 5, "node": 0})
    assert "in pools then 8192 MiB, left 0 MiB" in error.evidence[0] and "node 0" in error.message
    error = refused(root, {"size": "1G", "count": 13})
    assert "in pools then 16384 MiB" in error.evidence[0] and "the host" in error.message
    run(root, [{"size": "1G", "count": 12}])  # 15 of 16 GiB


def test_the_floor_is_lowered_knowingly_and_not_to_nothing(root: HugetlbRoot, grub: FakeGrub) -> None:
    almost_all = {"size": "2M", "count": 8192 - 256}
    root.free_mib = {None: 16384, 0: 8192, 1: 8192}
    root.show()
    assert refused(root, almost_all).code == "host_memory"
    assert refused(root, almost_all, host_memory="513M").code == "host_memory"
    for useless in ("0", "127M"):
        assert refused(root, almost_all, host_memory=useless).evidence[0].endswith("the least is 128M")
    assert run(root, [almost_all], host_memory="512M")["changed"]


def test_a_node_keeps_no_more_than_its_share_of_the_floor(root: HugetlbRoot) -> None:
    root.free_mib = {None: 16384, 0: 8192, 1: 8192}
    root.show()
    on_node_0 = {"size": "2M", "count": 4096 - 64, "node": 0}  # 128 MiB left
    assert "NUMA node 0" in refused(root, on_node_0).message
    run(root, [on_node_0], host_memory="256M")


def test_a_host_that_lives_with_less_is_told_and_not_stopped(root: HugetlbRoot) -> None:
    root.set(M2, 0, 4096)
    root.set(M2, 1, 4096)
    declared = {"size": "2M", "count": 8192}
    (text,) = warned(root, declared)
    assert "too little memory for the host" in text
    run(root, [{"size": "2M", "count": 8000}])  # fewer is better, though not enough yet


@pytest.mark.parametrize(("total", "floor"), [(512, 256), (1024, 256), (8192, 512), (128000, 4096), (4096000, 4096)])
def test_what_a_host_keeps_by_its_size(tree: Tree, total: int, floor: int) -> None:
    root = HugetlbRoot(tree, nodes=1)
    tree.file("/proc/meminfo", "MemTotal: %d kB\nMemFree: %d kB" % (total << 10, total << 10))
    pages = (total - floor) // 2
    host = Pools(root)
    assert shortage(host, {Pool(M2, None): pages}, None) is None
    assert shortage(host, {Pool(M2, None): pages + 1}, None) is not None


def test_pages_in_use_are_never_taken(root: HugetlbRoot) -> None:
    run(root, [{"size": "2M", "count": 8, "node": 0}])
    root.set(M2, 0, 8, used=6)
    error = refused(root, {"size": "2M", "count": 5, "node": 0})
    assert error.code == "pool_in_use" and "6 are in use" in error.message
    assert refused(root, state="absent").code == "pool_in_use"
    assert run(root, [{"size": "2M", "count": 6, "node": 0}])["changed"]


class DpdkEnded(HugetlbRoot):
    """A host on which an ended DPDK process left two pages behind in one file."""

    LEFT = "/dev/hugepages/rtemap_0"

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        tree.file("/proc/1/mountinfo", "30 1 0:27 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=2M")
        for name in ("rtemap_0", "database"):
            tree.file("/dev/hugepages/" + name)
            os.truncate(self.path("/dev/hugepages/" + name), 2 * M2)
        self.set(M2, 0, 8, used=2)

    def remove_file(self, path: str) -> bool:
        if path == self.LEFT:
            self.set(M2, 0, self.pages[M2, 0][0], used=0)
        return super().remove_file(path)


def test_pages_that_an_ended_dpdk_left_behind_are_taken_back(tree: Tree) -> None:
    root = DpdkEnded(tree)
    declared = [{"size": "2M", "count": 0}]
    predicted = run(root, declared, check=True)
    assert root.exists(root.LEFT)
    done = run(root, declared)
    assert predicted["left_over"] == done["left_over"] == [root.LEFT]
    assert root.pages[M2, 0] == [0, 0]
    assert not root.exists(root.LEFT) and root.exists("/dev/hugepages/database")


def test_files_that_a_running_dpdk_has_locked_stay(tree: Tree) -> None:
    root = DpdkEnded(tree)
    with open(root.path(root.LEFT), "rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(HostError, match="cannot shrink to 0 pages: 2 are in use"):
            run(root, [{"size": "2M", "count": 0}])
    assert root.exists(root.LEFT) and root.pages[M2, 0] == [8, 2]


def test_left_over_files_that_are_in_nobodys_way_stay(tree: Tree) -> None:
    root = DpdkEnded(tree)
    assert run(root, [{"size": "2M", "count": 4}])["left_over"] == []
    assert root.exists(root.LEFT)


def test_what_is_no_file_is_nobodys_garbage(tree: Tree) -> None:
    """A FIFO above all: to open it waits for whoever writes, and all members of the group can make one."""
    root = DpdkEnded(tree)
    os.mkfifo(root.path("/dev/hugepages/rtemap_1"))
    os.symlink("database", root.path("/dev/hugepages/rtemap_2"))
    root.tree.dir("/dev/hugepages/rtemap_3")
    signal.alarm(20)  # ends the tests rather than let them wait for ever
    try:
        assert run(root, [{"size": "2M", "count": 0}])["left_over"] == [root.LEFT]
    finally:
        signal.alarm(0)
    assert root.listdir("/dev/hugepages") == ["database", "rtemap_1", "rtemap_2", "rtemap_3"]


def test_left_over_files_may_go_by_themselves(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = DpdkEnded(tree)
    plan = PoolsPlan(root, Idle(), [{"size": "2M", "count": 0}])
    root.remove_file(root.LEFT)
    plan.apply()
    root = DpdkEnded(tree)
    really = fcntl.flock

    def gone(handle: int, how: int) -> None:
        os.unlink(root.path(root.LEFT))
        root.set(M2, 0, 8)
        really(handle, how)

    monkeypatch.setattr(fcntl, "flock", gone)
    assert run(root, [{"size": "2M", "count": 0}])["changed"]
    assert root.pages[M2, 0] == [0, 0]


def test_only_files_with_pages_of_a_size_that_shrinks_are_locked(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = DpdkEnded(tree)
    root.set(G1, 0, 1, used=1)
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: pytest.fail("a lock was taken"))
    with pytest.raises(HostError, match="1 are in use"):
        run(root, [{"size": "1G", "count": 0}])
