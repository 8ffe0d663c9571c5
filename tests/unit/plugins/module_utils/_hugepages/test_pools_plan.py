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
