# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernels other than the running one, and kernels to come."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.upkeep import headers_to_come
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_runs import (
    BOTH,
    RECORD,
    Run,
    refused,
    remove,
    source,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

# --- which kernels ---


def test_a_kernel_without_headers_is_a_warning(dkms: FakeDkms, tree: Tree) -> None:
    tree.remove("/lib/modules/%s/build" % OTHER)
    run = Run(dkms)
    assert run.result["after"] == {KERNEL: "installed"}
    assert "linux-headers-" + OTHER in run.module.warnings[0]


@pytest.mark.parametrize("rc", [77, 9])
def test_an_excluded_kernel_is_a_warning_and_not_tried_again(dkms: FakeDkms, tree: Tree, rc: int) -> None:
    dkms.failing["-k " + OTHER] = RunResult(rc, "", "Error! BUILD_EXCLUSIVE\n")
    run = Run(dkms)
    assert run.result["after"] == {KERNEL: "installed"} and "BUILD_EXCLUSIVE" in run.module.warnings[0]
    dkms.ran.clear()
    again = Run(dkms)
    assert not again.result["changed"] and dkms.ran == [] and "BUILD_EXCLUSIVE" in again.module.warnings[0]
    dkms.failing.clear()
    assert Run(dkms, source(code="int b;")).result["after"] == BOTH
    assert not Run(dkms, source(code="int b;")).module.warnings


def test_another_failure_with_the_number_of_an_old_exclusion_is_one(dkms: FakeDkms, tree: Tree) -> None:
    dkms.failing["-k " + OTHER] = RunResult(9, "", "Error! oops\n")
    assert Run(dkms).result["failed_kernels"] == {OTHER: ["dkms build: rc 9", "Error! oops"]}


@pytest.mark.parametrize("params", [{}, {"kernels": [KERNEL]}])
def test_an_excluded_kernel_that_is_needed_is_an_error(dkms: FakeDkms, params: dict[str, Any]) -> None:
    dkms.failing["-k " + KERNEL] = RunResult(77, "", "Error! BUILD_EXCLUSIVE\n")
    assert refused(dkms, **params).code == "kernel_excluded"


def test_named_kernels(dkms: FakeDkms) -> None:
    assert list(Run(dkms, kernels=["running"], check=True).result["after"]) == [KERNEL]
    assert list(Run(dkms, kernels=["all"], check=True).result["after"]) == [KERNEL, OTHER]
    assert list(Run(dkms, kernels=[OTHER, OTHER], check=True).result["after"]) == [OTHER]
    assert "7.7.7" in refused(dkms, kernels=["7.7.7"]).message


def test_a_loaded_older_version_is_mentioned(dkms: FakeDkms, tree: Tree) -> None:
    tree.file("/sys/module/noiommu/version", "0.9.0")
    tree.file("/sys/module/noiommu/refcnt", "1")
    assert "0.9.0" in Run(dkms).module.warnings[0]


# --- kernels other than the running one that it does not build for ---

BROKEN = "DKMS make.log for noiommu-1.0.0 for kernel %s (x86_64)\ngcc a.c\na.c:3:1: error: oops\n" % OTHER
HALF = {KERNEL: "installed", OTHER: "failed"}


def break_other(dkms: FakeDkms) -> None:
    dkms.failing["-k " + OTHER] = RunResult(10, "Error! Bad return status\n", "")
    dkms.log = BROKEN


def test_a_failing_build_for_another_kernel_stops_nothing_and_is_reported(dkms: FakeDkms, tree: Tree) -> None:
    break_other(dkms)
    run = Run(dkms)
    assert run.result["changed"] and run.result["after"] == HALF
    assert run.result["failed_kernels"] == {OTHER: ["dkms build: rc 10", "a.c:3:1: error: oops"]}
    assert OTHER in run.module.warnings[0] and "error: oops" in run.module.warnings[0]
    assert not tree.root.exists("/lib/modules/%s/updates/dkms" % OTHER)


def test_a_known_failure_is_reported_again_but_not_tried_again(dkms: FakeDkms) -> None:
    break_other(dkms)
    Run(dkms)
    dkms.ran.clear()
    for check in (True, False):
        again = Run(dkms, check=check)
        assert not again.result["changed"] and dkms.ran == []
        assert (again.result["before"], again.result["after"]) == (HALF, HALF)
        assert "error: oops" in again.result["failed_kernels"][OTHER][1] and OTHER in again.module.warnings[0]


@pytest.mark.parametrize("news", ["headers", "source", "by name"])
def test_a_known_failure_is_tried_again_once_there_is_something_new(dkms: FakeDkms, tree: Tree, news: str) -> None:
    break_other(dkms)
    Run(dkms)
    dkms.failing.clear()
    if news == "headers":
        tree.file("/usr/src/linux-headers-%s/Module.symvers" % OTHER, "new")
    run = Run(dkms, source(code="int b;") if news == "source" else None, kernels=[OTHER] if news == "by name" else [])
    assert run.result["changed"] and run.result["after"][OTHER] == "installed" and run.result["failed_kernels"] == {}
    assert not tree.root.exists(RECORD) or "oops" not in tree.root.read_text(RECORD)


def test_a_failure_alone_is_no_change(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms, kernels=[KERNEL])
    break_other(dkms)
    run = Run(dkms)
    assert not run.result["changed"] and run.result["after"] == HALF
    assert tree.root.exists("/lib/modules/%s/updates/dkms/noiommu.ko" % KERNEL)


def test_a_failing_build_for_a_kernel_that_was_asked_for_is_an_error(dkms: FakeDkms) -> None:
    break_other(dkms)
    assert refused(dkms, kernels=[OTHER]).code == "build_failed"


def test_the_running_kernel_is_always_tried_again(dkms: FakeDkms, tree: Tree) -> None:
    """As after booting into a kernel that the build failed for."""
    break_other(dkms)
    Run(dkms)
    tree.file("/proc/sys/kernel/osrelease", OTHER)
    assert "error: oops" in Run(dkms, check=True).result["failed_kernels"][OTHER][1]
    error = refused(dkms)
    assert error.code == "build_failed" and OTHER in error.message


def test_what_dkms_itself_failed_to_build_is_drift_with_the_cause(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms, kernels=[KERNEL])
    tree.file("/var/lib/dkms/noiommu/1.0.0/build/make.log", BROKEN)
    run = Run(dkms, check=True)
    assert run.result["changed"] and run.result["failed_kernels"] == {OTHER: ["a.c:3:1: error: oops"]}
    assert "error: oops" in run.module.warnings[0]
    assert Run(dkms).result["failed_kernels"] == {}
    assert not Run(dkms, check=True).result["changed"]


def test_absent_forgets_failures(dkms: FakeDkms, tree: Tree) -> None:
    break_other(dkms)
    Run(dkms)
    remove(dkms)
    assert not tree.root.exists(RECORD)


# --- kernels to come ---

INFO = "/var/lib/dpkg/info/"


def upkeep(dkms: FakeDkms) -> list[str]:
    """Return the warnings, after seeing that a deploy, the next one and a dry run have the same."""
    found = [Run(dkms, check=check).module.warnings for check in (False, False, True)]
    assert found[0] == found[1] == found[2]
    return found[0]


def test_the_headers_of_the_next_kernel_are_missed(dkms: FakeDkms, tree: Tree) -> None:
    tree.file(INFO + "linux-image-amd64.list")
    (text,) = upkeep(dkms)
    assert text.startswith("linux-image-amd64 brings newer kernels, but linux-headers-amd64 is not installed.")
    tree.file(INFO + "linux-headers-amd64.list")
    assert upkeep(dkms) == []


@pytest.mark.parametrize(
    ("release", "installed", "missing"),
    [
        ("6.1.0-56-cloud-amd64", ["linux-image-cloud-amd64", "linux-image-amd64"], "linux-headers-cloud-amd64"),
        ("6.12.57+deb13-rt-amd64", ["linux-image-rt-amd64"], "linux-headers-rt-amd64"),
        ("6.8.0-45-generic", ["linux-image-generic-hwe-24.04"], "linux-headers-generic-hwe-24.04"),
        ("6.8.0-45-generic", ["linux-image-generic", "linux-headers-generic"], None),
        ("6.1.0-56-amd64", ["linux-image-6.1.0-56-amd64", "linux-image-cloud-amd64"], None),
        ("6.1.0-56-amd64", ["linux-image-amd64-dbg", "linux-headers-6.1.0-56-amd64"], None),
        ("5.14.0-570.el9.x86_64", [], None),
    ],
)
def test_headers_to_come_by_flavour(tree: Tree, release: str, installed: list[str], missing: str | None) -> None:
    tree.file("/proc/sys/kernel/osrelease", release)
    for package in installed:
        tree.file("%s%s.list" % (INFO, package))
    found = headers_to_come(tree.root)
    assert (found[1] if found else None) == missing


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("/etc/dkms/no-autoinstall", "", "/etc/dkms/no-autoinstall is there"),
        ("/etc/dkms/noiommu.conf", "# ours\nAUTOINSTALL=no", "/etc/dkms/noiommu.conf, line 2, has DKMS build nothing"),
        ("/etc/dkms/noiommu-1.0.0.conf", 'AUTOINSTALL=""', "/etc/dkms/noiommu-1.0.0.conf, line 1"),
        ("/etc/dkms/noiommu.conf", 'AUTOINSTALL="YES"', None),
        ("/etc/dkms/zfs.conf", "AUTOINSTALL=no", None),
    ],
)
def test_what_keeps_dkms_from_building_by_itself(
    dkms: FakeDkms, tree: Tree, path: str, text: str, said: str | None
) -> None:
    tree.file(path, text)
    warnings = upkeep(dkms)
    assert len(warnings) == (said is not None) and all(line.startswith(said or "?") for line in warnings)
