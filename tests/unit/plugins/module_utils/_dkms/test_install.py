# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The DKMS module installed, upgraded and mended."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import Source
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_runs import (
    BOTH,
    Run,
    remove,
    source,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

# --- the ways that succeed ---


def test_built_and_installed_for_every_kernel(dkms: FakeDkms, tree: Tree) -> None:
    run = Run(dkms)
    assert run.sent and run.result["changed"]
    assert run.result["before"] == {KERNEL: "absent", OTHER: "absent"} and run.result["after"] == BOTH
    assert tree.root.read_text("/usr/src/noiommu-1.0.0/noiommu.c") == "int a;"
    assert tree.root.realpath("/var/lib/dkms/noiommu/1.0.0/source") == "/usr/src/noiommu-1.0.0"
    assert [name for name in tree.root.listdir("/var/lib/dkms") if "stage" in name] == []


def test_converged_is_one_call_that_spawns_nothing(dkms: FakeDkms) -> None:
    Run(dkms)
    dkms.ran.clear()
    run = Run(dkms)
    assert not run.sent and not run.result["changed"] and dkms.ran == []
    assert "diff" not in run.result


def test_check_mode_predicts_and_runs_nothing(dkms: FakeDkms, tree: Tree) -> None:
    before = tree.content()
    predicted = Run(dkms, check=True)
    assert dkms.ran == [] and tree.content() == before and not predicted.sent
    real = Run(dkms)
    for key in ("changed", "before", "after", "replaced", "diff"):
        assert real.result[key] == predicted.result[key]


def test_check_mode_warns_of_packages_that_an_earlier_task_may_install(dkms: FakeDkms, tree: Tree) -> None:
    tree.remove("/usr/sbin/dkms")
    run = Run(dkms, check=True)
    assert run.result["changed"] and "dkms" in run.module.warnings[0]


def test_a_kernel_installed_later_is_built_without_sending_the_source(dkms: FakeDkms) -> None:
    Run(dkms, kernels=[KERNEL])
    run = Run(dkms)
    assert run.result["before"] == {KERNEL: "installed", OTHER: "added"}
    assert not run.sent and run.result["after"] == BOTH
    assert [line for line in dkms.ran if "install" in line and KERNEL in line] == [
        "dkms install --force -m noiommu -v 1.0.0 -k " + KERNEL
    ]


def test_changed_source_of_the_same_version_is_rebuilt(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    run = Run(dkms, source(code="int b;"))
    assert run.sent and run.result["before"] == {KERNEL: "differs", OTHER: "differs"}
    assert "int b;" in tree.root.read_text("/lib/modules/%s/updates/dkms/noiommu.ko" % KERNEL)


def test_another_version_replaces_the_old_one(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    run = Run(dkms, source("1.1.0", "int b;"))
    assert run.result["replaced"] == ["1.0.0"]
    assert tree.root.listdir("/usr/src")[-1] == "noiommu-1.1.0"
    assert not tree.root.exists("/usr/src/noiommu-1.0.0") and not tree.root.exists("/var/lib/dkms/noiommu/1.0.0")
    assert not Run(dkms, source("1.1.0", "int b;")).result["changed"]


def test_an_old_version_left_behind_is_cleared_without_building(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    whole = tree.content()
    tree.file("/usr/src/noiommu-0.1/dkms.conf", 'PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="0.1"')
    tree.link("/var/lib/dkms/noiommu/0.1/source", "/usr/src/noiommu-0.1")
    dkms.ran.clear()
    run = Run(dkms)
    assert run.result["replaced"] == ["0.1"] and not run.sent
    assert dkms.ran == ["dkms remove -m noiommu -v 0.1 --all"] and tree.content() == whole


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        ("/lib/modules/%s/updates/dkms/noiommu.ko" % KERNEL, "built"),
        ("/var/lib/dkms/noiommu/1.0.0/" + KERNEL, "differs"),
        ("/var/lib/dkms/noiommu/1.0.0/source", "differs"),
        ("/var/lib/dkms/noiommu", "differs"),
        ("/usr/src/noiommu-1.0.0", "differs"),
        ("/usr/src/noiommu-1.0.0/dkms.conf", "differs"),
    ],
)
def test_whatever_is_lost_is_mended(dkms: FakeDkms, tree: Tree, damage: str, seen: str) -> None:
    Run(dkms)
    whole = tree.content()
    tree.remove(damage)
    run = Run(dkms)
    assert run.result["changed"] and run.result["before"][KERNEL] == seen
    assert tree.content() == whole
    assert not Run(dkms).result["changed"]


def test_an_installed_file_that_is_not_the_built_one_is_replaced(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    tree.file("/lib/modules/%s/updates/dkms/noiommu.ko" % KERNEL, "tampered")
    assert Run(dkms).result["before"][KERNEL] == "differs"
    assert not Run(dkms).result["changed"]


@pytest.mark.parametrize("older", [[], [source("0.9.0")]])
def test_a_run_killed_anywhere_is_finished_or_taken_back(
    dkms: FakeDkms, tree: Tree, monkeypatch: pytest.MonkeyPatch, older: list[Source]
) -> None:
    pristine = left(tree)

    def prepare() -> None:
        remove(dkms)
        for earlier in older:
            Run(dkms, earlier)

    prepare()
    Run(dkms)
    finished = left(tree)
    killer = Killer(monkeypatch, (dkms, "run"))
    for steps in killer.each(prepare, lambda: Run(dkms)):
        Run(dkms)
        assert left(tree) == finished, steps
        assert not Run(dkms).result["changed"]
    for steps in killer.each(prepare, lambda: Run(dkms)):
        remove(dkms)
        assert left(tree) == pristine, steps
    for steps in killer.each(lambda: Run(dkms), lambda: remove(dkms)):
        remove(dkms)
        assert left(tree) == pristine, steps
        assert not remove(dkms)[0]["changed"]


def test_a_module_that_a_power_cut_left_empty_is_built_again(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    finished = tree.content()
    for path in [path for path in finished if ".ko" in path or "mok." in path]:
        tree.file(path, b"")
    predicted = Run(dkms, check=True).result
    run = Run(dkms)
    assert predicted["changed"] and predicted["before"] == run.result["before"] == {KERNEL: "differs", OTHER: "differs"}
    assert tree.content() == finished and not Run(dkms).result["changed"]


def test_a_module_that_is_not_in_the_index_is_installed_again(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    tree.file("/lib/modules/%s/modules.dep" % KERNEL, "kernel/a.ko:\nupdates/dkms/noiommu.ko:")
    assert not Run(dkms).result["changed"]
    tree.file("/lib/modules/%s/modules.dep" % KERNEL, "kernel/a.ko:\nkernel/my-noiommu.ko:")
    dkms.ran.clear()
    assert Run(dkms).result["changed"] and dkms.ran == ["dkms install --force -m noiommu -v 1.0.0 -k " + KERNEL]


def test_absent_mends_an_index_that_names_a_module_which_is_gone(dkms: FakeDkms, tree: Tree) -> None:
    index = "/lib/modules/%s/modules.dep" % KERNEL
    tree.file(index, "updates/dkms/noiommu.ko:")
    monkeyed = dkms.run

    def depmod(*argv: str) -> RunResult:
        if argv == ("depmod", KERNEL):
            tree.file(index, "kernel/a.ko:")
        return monkeyed(*argv)

    with pytest.raises(HostError, match="completely") as caught:
        remove(dkms)
    assert "modules.dep names it for: " + KERNEL in caught.value.evidence
    dkms.run = depmod  # type: ignore[method-assign]
    assert remove(dkms, check=True)[0]["changed"] and remove(dkms)[0]["changed"]
    assert not remove(dkms)[0]["changed"]
