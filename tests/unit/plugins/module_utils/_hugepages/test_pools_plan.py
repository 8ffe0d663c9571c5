# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools per page size and NUMA node."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.files import FileSet
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.hugetlb import parse_size
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.boot_files import SCRIPT, UNIT, WANTS
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.plan import RECORD, PoolsPlan
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb import (
    G1,
    M2,
    HugetlbRoot,
    Idle,
    refused,
    run,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

UNIT_PARENTS = ("/etc/systemd/system", "/etc/systemd")


@pytest.mark.parametrize(
    ("text", "size"), [("2M", M2), ("1G", G1), ("1GiB", G1), ("2048kB", M2), (M2, M2), ("2 MB", M2), ("16K", 16384)]
)
def test_sizes(text: Any, size: int) -> None:
    assert parse_size(text) == size


def test_counts_that_could_not_be_put_back_are_still_recorded(
    root: HugetlbRoot, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_files: FileSet) -> None:
        root.refuse = "nr_hugepages"
        raise HostError("file", "Could not write.", [], "Free space.")

    root.set(M2, 0, 1)
    apply = FileSet.apply
    with monkeypatch.context() as patch:
        patch.setattr(FileSet, "apply", lambda files: fail(files) if UNIT in files.changed_paths else apply(files))
        with pytest.raises(HostError, match="Could not write") as caught:
            run(root, [{"size": "2M", "count": 5}])
    assert any("put back" in line for line in caught.value.evidence)
    root.refuse = None
    run(root, state="absent")
    assert root.counts() == {(M2, 0): 1} and not tree.root.exists(RECORD)


@pytest.mark.parametrize("text", ["", "M", "-2M", "2T", "two"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(HostError):
        parse_size(text)


def test_a_total_for_the_host_now_and_at_boot(root: HugetlbRoot, tree: Tree) -> None:
    result = run(root, [{"size": "2M", "count": 5}])
    assert result["changed"]
    assert root.counts() == {(M2, 0): 3, (M2, 1): 2}
    assert result["pools"] == [
        {"size": "2M", "size_bytes": M2, "node": None, "requested": 5, "actual": 5, "free": 5, "shortfall": 0}
    ]
    line = "reserve '2M' /sys/kernel/mm/hugepages/hugepages-2048kB 5 /proc/meminfo"
    assert line in tree.root.read_text(SCRIPT).splitlines()
    assert "ExecStart=%s\n" % SCRIPT in tree.root.read_text(UNIT) and os.readlink(tree.at(WANTS)) == UNIT
    assert json.loads(tree.root.read_text(RECORD))["counts"] == {str(M2): {"0": 0, "1": 0}}


def test_pools_of_single_nodes(root: HugetlbRoot, tree: Tree) -> None:
    result = run(root, [{"size": "1G", "count": 2, "node": 1}, {"size": "2M", "count": 4, "node": 0}])
    assert root.counts() == {(G1, 1): 2, (M2, 0): 4}
    assert result["before"] == {"1G on NUMA node 1": 0, "2M on NUMA node 0": 0}
    node1 = "/sys/devices/system/node/node1"
    line = "reserve '1G on NUMA node 1' %s/hugepages/hugepages-1048576kB 2 %s/meminfo" % (node1, node1)
    assert line in tree.root.read_text(SCRIPT).splitlines()


def test_check_mode_predicts_the_real_run_and_changes_nothing(root: HugetlbRoot, tree: Tree) -> None:
    before = tree.content()
    predicted = run(root, [{"size": "2M", "count": 5}], check=True)
    assert tree.content() == before and root.writes == []
    assert run(root, [{"size": "2M", "count": 5}]) == predicted


def test_a_second_run_changes_nothing(root: HugetlbRoot) -> None:
    run(root, [{"size": "2M", "count": 5}])
    root.writes.clear()
    result = run(root, [{"size": "2M", "count": 5}])
    assert not result["changed"] and result["diff"] == [] and root.writes == []


def test_absent_restores_the_first_counts_node_by_node(root: HugetlbRoot, tree: Tree) -> None:
    root.set(M2, 1, 7)
    before = tree.content()
    run(root, [{"size": "2M", "count": 5}])
    run(root, [{"size": "2M", "count": 9, "node": 0}])
    assert root.counts() == {(M2, 0): 9, (M2, 1): 7}
    predicted = run(root, state="absent", check=True)
    assert run(root, state="absent") == predicted
    units = "/etc/systemd/system/multi-user.target.wants"
    for made in (units, *UNIT_PARENTS, "/etc", "/usr/local/lib", "/usr/local", "/usr", "/var/lib", "/var"):
        tree.root.remove_empty_dir(made)
    assert tree.content() == before
    assert not run(root, state="absent")["changed"]


def test_what_is_no_longer_declared_is_given_back(root: HugetlbRoot) -> None:
    run(root, [{"size": "2M", "count": 4}, {"size": "1G", "count": 2}])
    run(root, [{"size": "1G", "count": 2}])
    assert root.counts() == {(G1, 0): 1, (G1, 1): 1}


def recorded(root: HugetlbRoot) -> dict[str, dict[str, int]]:
    return json.loads(root.read_text(RECORD) or '{"counts": {}}')["counts"]


def test_a_node_that_was_never_declared_is_not_ours(root: HugetlbRoot) -> None:
    on_node_0 = [{"size": "2M", "count": 4, "node": 0}]
    run(root, on_node_0)
    assert recorded(root) == {str(M2): {"0": 0}}
    root.set(M2, 1, 50, used=20)
    assert not run(root, on_node_0)["changed"]
    run(root, state="absent")
    assert root.counts() == {(M2, 1): 50}


def test_a_node_that_is_no_longer_declared_is_given_back_once(root: HugetlbRoot) -> None:
    root.set(M2, 1, 7)
    on_node_0, on_both = {"size": "2M", "count": 4, "node": 0}, {"size": "2M", "count": 9, "node": 1}
    run(root, [on_node_0])
    root.set(M2, 1, 8)
    run(root, [on_node_0, on_both])
    assert recorded(root) == {str(M2): {"0": 0, "1": 8}}
    run(root, [on_node_0])
    assert root.counts() == {(M2, 0): 4, (M2, 1): 8} and recorded(root) == {str(M2): {"0": 0}}
    root.set(M2, 1, 12)
    assert not run(root, [on_node_0])["changed"]


def test_without_a_node_all_of_them_are_declared(root: HugetlbRoot) -> None:
    root.set(M2, 0, 1)
    run(root, [{"size": "2M", "count": 4, "node": 0}])
    root.set(M2, 1, 2)
    run(root, [{"size": "2M", "count": 20}])
    assert recorded(root) == {str(M2): {"0": 1, "1": 2}}
    run(root, [{"size": "2M", "count": 4, "node": 0}])
    assert root.counts() == {(M2, 0): 4, (M2, 1): 2}


def test_an_older_record_also_names_nodes_that_were_not_declared(root: HugetlbRoot, tree: Tree) -> None:
    """Nobody knows whether they were: they are given back once more, and are then nobody's."""
    tree.file(RECORD, json.dumps({"version": 1, "counts": {str(M2): {"0": 3, "1": 6}}}))
    on_node_0 = [{"size": "2M", "count": 4, "node": 0}]
    run(root, on_node_0)
    assert root.counts() == {(M2, 0): 4, (M2, 1): 6} and recorded(root) == {str(M2): {"0": 3}}
    root.set(M2, 1, 50)
    assert not run(root, on_node_0)["changed"]
    run(root, state="absent")
    assert root.counts() == {(M2, 0): 3, (M2, 1): 50}


def test_what_the_boot_needs_is_not_kept_on_a_network_mount(root: HugetlbRoot, tree: Tree) -> None:
    tree.file("/etc/fstab", "nas:/local /usr/local nfs defaults 0 0")
    assert refused(root, {"size": "2M", "count": 8}).code == "late_mount"
    run(root, [{"size": "2M", "count": 8}], persistent=False)


def test_not_persistent_writes_no_boot_file(root: HugetlbRoot, tree: Tree) -> None:
    run(root, [{"size": "2M", "count": 4}], persistent=False)
    assert not tree.root.exists(UNIT) and not tree.root.exists(SCRIPT) and tree.root.exists(RECORD)


def test_a_drifted_count_is_mended(root: HugetlbRoot) -> None:
    run(root, [{"size": "2M", "count": 4}])
    root.set(M2, 0, 0)
    assert run(root, [{"size": "2M", "count": 4}])["changed"]
    assert root.counts() == {(M2, 0): 2, (M2, 1): 2}


def test_compaction_is_tried_before_giving_up(root: HugetlbRoot) -> None:
    root.limit[M2, 0] = 1
    root.after_compaction[M2, 0] = 100
    plan = PoolsPlan(root, Idle(), [{"size": "2M", "count": 8, "node": 0}])
    plan.apply(sleep=lambda seconds: None)
    assert root.counts() == {(M2, 0): 8}
    assert "/proc/sys/vm/compact_memory" in root.writes


def test_a_shortfall_names_numbers_and_puts_everything_back(root: HugetlbRoot, tree: Tree) -> None:
    root.set(M2, 0, 3)
    run(root, [{"size": "2M", "count": 2, "node": 0}])
    before = tree.content()
    root.limit[M2, 1] = 5
    pools = [{"size": "2M", "count": 4, "node": 0}, {"size": "2M", "count": 8, "node": 1}]
    with pytest.raises(HostError) as caught:
        PoolsPlan(root, Idle(), pools).apply(sleep=lambda seconds: None)
    assert caught.value.code == "pool_shortfall"
    assert "gave 5 of 8 pages of 2M on NUMA node 1" in caught.value.message
    assert "free memory: 4096 MiB, needed for the missing pages: 6 MiB" in caught.value.evidence
    assert tree.content() == before


def test_a_refused_write_puts_everything_back(root: HugetlbRoot, tree: Tree) -> None:
    before = tree.content()
    root.refuse = "hugepages-1048576kB"
    with pytest.raises(HostError):
        run(root, [{"size": "2M", "count": 4}, {"size": "1G", "count": 2}])
    assert tree.content() == before


def test_more_than_there_is_memory_is_refused_at_once(root: HugetlbRoot) -> None:
    error = refused(root, {"size": "1G", "count": 9, "node": 0})
    assert (error.code, error.evidence) == ("pool_shortfall", ["needed 9216 MiB, MemTotal 8192 MiB"])


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


@pytest.fixture
def grub(root: HugetlbRoot, tree: Tree) -> FakeGrub:
    """A host that GRUB boots, whose node 1 has 1500 MiB free."""
    tree.file("/proc/sys/kernel/osrelease", "6.1.0-56-amd64")
    root.free_mib[1] = 1500
    root.show()
    return FakeGrub(tree)


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


def test_the_script_of_the_boot_unit_reserves_and_complains(root: HugetlbRoot, tree: Tree) -> None:
    """Run as it is, on the tree's paths: a file of the tree takes any number, so only the second pool falls short."""
    run(root, [{"size": "2M", "count": 4, "node": 0}, {"size": "2M", "count": 5, "node": 1}])
    text = re.sub("/(sys|proc)/", r"%s/\1/" % tree.base, tree.root.read_text(SCRIPT))
    pool = tree.at("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages")
    pool.unlink()
    pool.symlink_to("/dev/null")
    done = subprocess.run(["sh", "-c", text.replace("sleep 0.25", ":")], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "2M on NUMA node 0: 4 pages",
        "2M on NUMA node 1: SHORTFALL,  of 5 pages; Node 1 MemFree: 4194304 kB",
    ]


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


def test_the_boot_unit_comes_after_sysctl(root: HugetlbRoot, tree: Tree) -> None:
    run(root, [{"size": "2M", "count": 5}])
    assert "After=systemd-sysctl.service\n" in tree.root.read_text(UNIT)


@pytest.mark.parametrize("jobs, is_enabled, asked", [(["7", "7", ""], True, 3), (["7"] * 30, True, 20), ([], False, 0)])
def test_the_boot_script_waits_for_dpdk_service_but_not_for_ever(
    root: HugetlbRoot, tree: Tree, jobs: list[str], is_enabled: bool, asked: int
) -> None:
    """The boot waits for the script, and dpdk.service has no time limit."""
    run(root, [{"size": "2M", "count": 5}])
    if is_enabled:
        tree.file(WANTS_DIR + "dpdk.service")
    tree.file("/jobs", "\n".join(jobs) + "\n")
    text = re.sub("/(sys|proc|etc)/", r"%s/\1/" % tree.base, tree.root.read_text(SCRIPT)).replace("sleep 1", ":")
    systemctl = 'exec 3< %s/jobs; systemctl() { echo "$*" >> %s/asked; read -r job <&3; echo "$job"; }\n'
    # A function reads in the subshell of $(...) from the same open file.
    subprocess.run(["sh", "-c", systemctl % (tree.base, tree.base) + text], capture_output=True, check=False)
    lines = (tree.root.read_text("/asked") or "").splitlines()
    assert lines == ["show --property=Job --value dpdk.service"] * asked


def test_a_number_that_sysctl_sets_is_named_with_its_line(root: HugetlbRoot, tree: Tree) -> None:
    tree.file("/etc/sysctl.d/80-vpp.conf", "\n# Number of 2MB hugepages desired\nvm.nr_hugepages=1024\n")
    assert warned(root, {"size": "2M", "count": 5}) == [
        "/etc/sysctl.d/80-vpp.conf, line 3, sets vm.nr_hugepages to 1024, but declared is 2M: 5. Whenever it is applied"
        ", as by `sysctl --system` or the upgrade of a package, it replaces the declared pages."
        " Remove the line, or have it say 5; a file of the same name in /etc/sysctl.d replaces one elsewhere."
    ]
    assert warned(root, {"size": "2M", "count": 1024}) == warned(root, {"size": "1G", "count": 1}) == []


def test_a_total_that_sysctl_sets_never_says_what_each_node_has(root: HugetlbRoot, tree: Tree) -> None:
    tree.file("/etc/sysctl.d/80-vpp.conf", "vm.nr_hugepages=8")
    pools = [{"size": "2M", "count": 6, "node": 0}, {"size": "2M", "count": 2, "node": 1}]
    (text,) = warned(root, *pools)
    assert "declared is 2M on NUMA node 0: 6, 2M on NUMA node 1: 2." in text and "Remove the line; a file" in text


SEVEN, AS_DECLARED = "vm.nr_hugepages = 7", "vm.nr_hugepages=5"


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"/usr/lib/sysctl.d/80-vpp.conf": SEVEN}, "/usr/lib/sysctl.d/80-vpp.conf, line 1,"),
        ({"/run/sysctl.d/a.conf": "; no\n-vm/nr_hugepages=7"}, "/run/sysctl.d/a.conf, line 2,"),
        ({"/etc/sysctl.conf": "#%s\n%s\nvm.nr_hugepages_mempolicy=1" % (SEVEN, SEVEN)}, "/etc/sysctl.conf, line 2,"),
        ({"/usr/lib/sysctl.d/80-vpp.conf": SEVEN, "/etc/sysctl.d/80-vpp.conf": ""}, None),
        ({"/usr/lib/sysctl.d/80-vpp.conf": SEVEN, "/etc/sysctl.d/90-mine.conf": AS_DECLARED}, None),
        ({"/usr/lib/sysctl.d/99.conf": SEVEN, "/etc/sysctl.d/90.conf": AS_DECLARED}, "/usr/lib/sysctl.d/99.conf"),
        ({"/etc/sysctl.d/80-vpp.conf.bak": SEVEN}, None),
    ],
)
def test_of_all_settings_the_one_that_counts_is_named(
    root: HugetlbRoot, tree: Tree, files: dict[str, str], where: str | None
) -> None:
    for path, text in files.items():
        tree.file(path, text)
    texts = warned(root, {"size": "2M", "count": 5})
    assert [text.startswith(where or "?") for text in texts] == ([True] if where else [])


# --- what others do to the pools ---

WANTS_DIR = "/etc/systemd/system/multi-user.target.wants/"


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ("# NR_2M_PAGES=64", []),
        ("NR_2M_PAGES=0", []),
        ("NR_2M_PAGES=5", []),
        ("NR_2M_PAGES=64", ["line 1, has dpdk.service reserve 64 pages of 2M, but declared is 2M: 5."]),
        ("NR_2M_PAGES=64\nNR_2M_PAGES=5", []),
        ('#\nNR_2M_PAGES="0 64"', ["line 2, has dpdk.service reserve 64 pages of 2M on NUMA node 1,"]),
        ("NR_2M_PAGES='32 64'", ["32 pages of 2M on NUMA node 0", "64 pages of 2M on NUMA node 1"]),
        ("NR_1G_PAGES=2", []),
        ("NR_2M_PAGES=$(nproc)", []),
    ],
)
def test_pages_of_dpdk_service(root: HugetlbRoot, tree: Tree, conf: str, said: list[str]) -> None:
    tree.file("/etc/dpdk/dpdk.conf", conf)
    assert warned(root, {"size": "2M", "count": 5}) == []  # it does not run at boot
    tree.file(WANTS_DIR + "dpdk.service")
    texts = warned(root, {"size": "2M", "count": 5})
    assert len(texts) == len(said) and all(part in text for part, text in zip(said, texts))
    assert all(text.startswith("/etc/dpdk/dpdk.conf, line ") for text in texts)


def test_pages_of_dpdk_service_by_node(root: HugetlbRoot, tree: Tree) -> None:
    tree.file(WANTS_DIR + "dpdk.service")
    tree.file("/etc/dpdk/dpdk.conf", 'NR_2M_PAGES="6 3"')
    pools = [{"size": "2M", "count": 6, "node": 0}, {"size": "2M", "count": 2, "node": 1}]
    (text,) = warned(root, *pools)
    assert "3 pages of 2M on NUMA node 1" in text
    assert warned(root, pools[0]) == []  # node 1 is nobody's but dpdk.service's


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[sysctl]\nvm.nr_hugepages=5", None),
        ("[sysctl]\nvm.nr_hugepages=512", "line 2, of an active profile of TuneD sets vm.nr_hugepages to 512,"),
        ("[sysctl]\nvm.nr_hugepages=${pages}", "sets vm.nr_hugepages to ${pages},"),
        ("[sysctl]\n# vm.nr_hugepages=512", None),
        ("[vm]\nvm.nr_hugepages=512", None),
        ("[sysfs]\n/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages=7", "nr_hugepages to 7"),
        ("[sysfs]\n/sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages=2", "node*"),
        ("[sysfs]\n/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages=7", None),
        ("[bootloader]\ncmdline_mine=+hugepagesz=1G hugepages=8 quiet", None),
        (
            "[bootloader]\ncmdline_mine=hugepagesz=2M hugepages=8",
            "hugepagesz=2M hugepages=8 on the kernel command line",
        ),
        ("[bootloader]\ncmdline=+hugepages=8", "hugepages=8 on the kernel command line"),
    ],
)
def test_pages_of_an_active_profile_of_tuned(root: HugetlbRoot, tree: Tree, lines: str, said: str | None) -> None:
    tree.file("/etc/tuned/mine/tuned.conf", lines)
    tree.file("/etc/tuned/active_profile", "mine")
    assert warned(root, {"size": "2M", "count": 5}) == []  # it does not run at boot
    tree.file(WANTS_DIR + "tuned.service")
    texts = warned(root, {"size": "2M", "count": 5})
    assert len(texts) == (said is not None) and all((said or "?") in text for text in texts)
    tree.file("/etc/tuned/active_profile", "balanced")
    assert warned(root, {"size": "2M", "count": 5}) == []


def test_profiles_of_tuned_include_and_replace_others(root: HugetlbRoot, tree: Tree) -> None:
    tree.file(WANTS_DIR + "tuned.service")
    tree.file("/etc/tuned/active_profile", "balanced mine")
    tree.file("/etc/tuned/mine/tuned.conf", "[main]\ninclude=-absent, base;mine")  # and itself, for ever
    tree.file("/usr/lib/tuned/base/tuned.conf", "[sysctl]\nvm.nr_hugepages=1")
    (text,) = warned(root, {"size": "2M", "count": 5})
    assert text.startswith("/usr/lib/tuned/base/tuned.conf, line 2,")
    tree.file("/etc/tuned/base/tuned.conf", "\n[sysctl]\nvm.nr_hugepages = 2")
    (text,) = warned(root, {"size": "2M", "count": 5})
    assert text.startswith("/etc/tuned/base/tuned.conf, line 3,")
    tree.file("/etc/tuned/mine/tuned.conf", "[main]\ninclude=base\n[sysctl]\nvm.nr_hugepages=5")
    assert warned(root, {"size": "2M", "count": 5}) == []


@pytest.mark.parametrize("name", ["kubelet", "k3s-agent", "kubelite", "bash"])
def test_a_kubelet_has_to_count_again(root: HugetlbRoot, tree: Tree, name: str) -> None:
    tree.file("/proc/4711/comm", name)
    module = FakeModule(declaration(pools=[{"size": "2M", "count": 5}]))
    for told in (name != "bash", False):  # only where the numbers changed
        module.warnings.clear()
        hugepages.hugepages(module, root, Idle())
        assert (
            module.warnings
            == [
                "%s (process 4711) counts the pages of this host only when it starts: restart its service, so that"
                " Kubernetes knows the new numbers." % name
            ]
            * told
        )


ON_NODE_0, ON_NODE_1, ANYWHERE = ([{"size": "2M", "count": 64, "node": node}] for node in (0, 1, None))


@pytest.mark.parametrize(
    ("first", "second"), [(ANYWHERE, []), (ON_NODE_0, ON_NODE_1), (ON_NODE_0, ANYWHERE), (ANYWHERE, ON_NODE_0)]
)
def test_a_run_killed_anywhere_is_finished_by_the_next(
    root: HugetlbRoot, monkeypatch: pytest.MonkeyPatch, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    root.set(M2, 1, 7)
    for folder in ("/var/lib", "/usr/local/lib/noiommu", "/etc/systemd/system/multi-user.target.wants"):
        root.tree.dir(folder)
    before = left(root.tree)
    killer = Killer(monkeypatch, (root, "write_sysfs"))
    for steps in killer.each(lambda: run(root, first), lambda: run(root, second)):
        run(root, state="absent")
        assert not run(root, state="absent")["changed"]
        root.tree.dir("/usr/local/lib/noiommu")  # vfio_binding removes it if nothing is in it
        assert left(root.tree) == before, steps
