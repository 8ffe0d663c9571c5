# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import errno
import os
import shutil
import tempfile
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import Source, digest, pack
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.upkeep import headers_to_come
from ansible_collections.baremetal.noiommu.plugins.modules import dkms_module
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

RECORD = "/var/lib/noiommu/dkms-noiommu.json"
BOTH = {KERNEL: "installed", OTHER: "installed"}


def source(version: str = "1.0.0", code: str = "int a;") -> Source:
    conf = 'PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="%s"\n' % version
    return {"dkms.conf": conf.encode(), "noiommu.c": code.encode(), "Makefile": b"all:\n"}


@pytest.fixture
def dkms(tree: Tree) -> FakeDkms:
    build_host(tree)
    return FakeDkms(tree)


class Run:
    """One execution of the module, as the action plugin does it: with the source only if it is asked for."""

    def __init__(self, dkms: FakeDkms, wanted: Source | None = None, check: bool = False, **params: Any) -> None:
        self.dkms = dkms
        wanted = wanted or source()
        version = wanted["dkms.conf"].decode().split('"')[3]
        given = {
            "name": "noiommu",
            "version": version,
            "digest": digest(wanted),
            "kernels": [],
            "archive": None,
            "build": "on_host",
        }
        self.module = FakeModule({**given, **params}, check)
        self.result = self._call()
        self.sent = self.result["source_needed"] and not check
        if self.sent:
            with tempfile.NamedTemporaryFile() as archive:
                archive.write(pack(wanted))
                archive.flush()
                self.module.params["archive"] = archive.name
                self.module.warnings.clear()
                self.result = self._call()

    def _call(self) -> dict[str, Any]:
        return dkms_module.present(self.module, self.dkms.tree.root, self.dkms)


def remove(dkms: FakeDkms, check: bool = False) -> tuple[dict[str, Any], list[str]]:
    module = FakeModule({"name": "noiommu"}, check)
    return dkms_module.absent(module, dkms.tree.root, dkms), module.warnings


def refused(dkms: FakeDkms, wanted: Source | None = None, **params: Any) -> HostError:
    """Return the error, after seeing that the host is as it was."""
    before = dkms.tree.content()
    with pytest.raises(HostError) as caught:
        Run(dkms, wanted, **params)
    assert dkms.tree.content() == before
    assert caught.value.evidence and caught.value.remedy
    return caught.value


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
        for source in older:
            Run(dkms, source)

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


# --- signatures ---

ENFORCE = "/sys/module/module/parameters/sig_enforce"


def trusted_key(tree: Tree) -> None:
    tree.file(ENFORCE, "Y")
    tree.file("/var/lib/dkms/mok.key", "key")
    tree.file("/var/lib/dkms/mok.pub", b"\x06\x03\x55\x1d\x0e\x04\x04\x04\x02\xab\xcd")
    tree.file("/proc/keys", "asymmetri DKMS module signing key: abcd: X509.rsa abcd []")


def test_a_key_that_the_kernel_does_not_trust_stops_it_before_anything_changes(dkms: FakeDkms, tree: Tree) -> None:
    tree.file(ENFORCE, "Y")
    assert refused(dkms).code == "key_not_enrolled" and dkms.ran == []


def test_an_unsigned_build_is_not_installed_where_only_signed_ones_load(dkms: FakeDkms, tree: Tree) -> None:
    trusted_key(tree)
    dkms.says = "Binary /usr/lib/linux-kbuild/scripts/sign-file not found, modules won't be signed\n"
    error = refused(dkms)
    assert error.code == "not_signed" and "sign-file not found" in error.evidence[1]
    dkms.signs = True
    assert Run(dkms).result["after"] == BOTH


# --- what stops it, before anything changes ---


@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ("/usr/sbin/dkms", "dkms"),
        ("/usr/bin/gcc-12", "gcc"),
        ("/usr/bin/make", "make"),
        ("/usr/src/linux-headers-" + KERNEL, "linux-headers-" + KERNEL),
    ],
)
def test_a_missing_package_is_named(dkms: FakeDkms, tree: Tree, missing: str, package: str) -> None:
    tree.remove(missing)
    error = refused(dkms)
    assert error.code == "build_tools_missing" and error.remedy.startswith("Run: apt-get install %s." % package)
    assert dkms.ran == []


def test_a_broken_compiler(dkms: FakeDkms) -> None:
    dkms.failing["/dev/null"] = RunResult(1, "", "gcc: fatal error: cannot execute 'cc1'\n")
    error = refused(dkms)
    assert error.code == "compiler_broken" and "cc1" in error.evidence[0]


def test_modules_that_cannot_be_written(dkms: FakeDkms, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Root, "try_writing", read_only)
    error = refused(dkms)
    assert error.code == "modules_unwritable"
    assert error.evidence == ["/lib/modules/%s: Read-only file system" % KERNEL]


def test_no_space(dkms: FakeDkms, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs("/")
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, full[2], 10, 10, *full[5:])))
    error = refused(dkms)
    assert error.code == "no_space" and "0 MiB free, 68 MiB needed" in error.evidence[0]


# --- what fails on the way, and leaves the host as it was ---


@pytest.mark.parametrize("older", [None, source("0.9.0"), source(code="int old;")])
def test_a_failing_build_names_the_cause(dkms: FakeDkms, older: Source | None) -> None:
    if older:
        Run(dkms, older)
    dkms.failing["dkms build"] = RunResult(10, "Error! Bad return status\n", "")
    dkms.log = (
        "gcc a.c\n/var/lib/dkms/.noiommu-stage-x1/tree/noiommu/1.0.0/build/a.c:3:1: error: oops\nmake[1]: *** x\n"
    )
    error = refused(dkms)
    assert error.code == "build_failed"
    assert error.evidence == ["dkms build: rc 10", "a.c:3:1: error: oops"]


def test_a_log_without_a_known_cause_is_shown_from_its_end(dkms: FakeDkms) -> None:
    dkms.failing["dkms build"] = RunResult(10, "", "")
    dkms.log = "\n".join("line %d" % number for number in range(20))
    assert refused(dkms).evidence[1:] == ["line %d" % number for number in range(14, 20)]


@pytest.mark.parametrize("older", [None, source("0.9.0"), source(code="int old;")])
def test_a_failing_installation_brings_the_old_state_back(dkms: FakeDkms, older: Source | None) -> None:
    if older:
        Run(dkms, older)
    dkms.failing["dkms install --force -m noiommu -v 1.0.0 -k " + OTHER] = RunResult(6, "", "cp: No space left\n")
    error = refused(dkms)
    assert error.code == "install_failed" and "cp: No space left" in error.evidence


def test_an_undo_that_fails_hides_no_error_stops_no_other_and_keeps_the_old_version(
    dkms: FakeDkms, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(dkms, source("0.9.0", "int old;"))
    dkms.failing["dkms install --force -m noiommu -v 1.0.0 -k " + OTHER] = RunResult(6, "", "cp: No space left\n")
    copy, kept = shutil.copytree, "/var/lib/dkms/.noiommu-kept"

    def full(source: Any, target: str, *options: Any, **more: Any) -> str:
        if "/.noiommu-stage-" in os.fspath(source) and "/old/" in os.fspath(source):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        return copy(source, target, *options, **more)

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(HostError) as caught:
        Run(dkms)
    error = caught.value
    assert error.code == "install_failed" and "cp: No space left" in error.evidence
    assert error.message.endswith("; NOT everything could be restored.")
    assert any(line.startswith("NOT put back: version 0.9.0 in DKMS: [Errno 28]") for line in error.evidence)
    assert not tree.root.exists("/usr/src/noiommu-1.0.0") and not tree.root.exists("/var/lib/dkms/noiommu/1.0.0")
    # Removed from its place, and the copy is the only one
    assert tree.root.read_text(kept + "/source/0.9.0/noiommu.c") == "int old;"
    assert kept + ": copies of what was replaced, until a run succeeds" in error.evidence

    with pytest.raises(HostError):  # a second failure does not lose it
        Run(dkms)
    assert tree.root.read_text(kept + "/source/0.9.0/noiommu.c") == "int old;"
    dkms.failing.clear()
    assert Run(dkms).result["after"] == BOTH and not tree.root.exists(kept)


def test_a_removal_takes_what_was_kept_as_well(dkms: FakeDkms, tree: Tree) -> None:
    tree.file("/var/lib/dkms/.noiommu-kept/source/0.9.0/noiommu.c")
    assert remove(dkms)[0]["changed"] and not tree.root.exists("/var/lib/dkms/.noiommu-kept")


def test_an_old_version_that_dkms_does_not_install_again_is_told(dkms: FakeDkms) -> None:
    Run(dkms, source("0.9.0"))
    dkms.failing["dkms install --force -m noiommu -v 1.0.0 -k " + OTHER] = RunResult(6, "", "no\n")
    dkms.failing["dkms install -m noiommu -v 0.9.0 -k " + KERNEL] = RunResult(6, "", "dkms: out of order\n")
    with pytest.raises(HostError) as caught:
        Run(dkms)
    told = "dkms install for kernel %s: rc 6: dkms: out of order" % KERNEL
    assert any("NOT put back: version 0.9.0 in DKMS" in line and told in line for line in caught.value.evidence)


def test_a_failing_installation_for_one_more_kernel_leaves_the_others(dkms: FakeDkms) -> None:
    Run(dkms, kernels=[KERNEL])
    dkms.failing["dkms install --force -m noiommu -v 1.0.0 -k " + OTHER] = RunResult(6, "", "no\n")
    assert refused(dkms).code == "install_failed"


def test_a_failing_dkms_add(dkms: FakeDkms) -> None:
    dkms.failing["dkms add"] = RunResult(1, "", "Error! broken\n")
    assert refused(dkms).evidence == ["rc 1", "Error! broken"]


def test_a_write_that_fails_half_way(dkms: FakeDkms, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(dkms, source("0.9.0"))
    rename = os.rename

    def full(here: str, there: str) -> None:
        if there.endswith("/1.0.0/" + OTHER):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(here, there)

    monkeypatch.setattr(os, "rename", full)
    assert "No space left" in refused(dkms).evidence[0]


def test_a_source_that_is_not_the_declared_one(dkms: FakeDkms) -> None:
    assert refused(dkms, digest="0" * 64).code == "archive"
    assert refused(dkms, version="9.9.9").code == "archive"


def test_an_archive_that_did_not_arrive(dkms: FakeDkms) -> None:
    assert refused(dkms, archive="/nonexistent/source.tar.gz").code == "archive"


# --- absent ---


def test_absent_leaves_nothing(dkms: FakeDkms, tree: Tree) -> None:
    before = tree.content()
    Run(dkms)
    predicted, _warnings = remove(dkms, check=True)
    result, _warnings = remove(dkms)
    assert result == predicted and result["before"] == BOTH
    assert set(result["after"].values()) == {"absent"}
    assert tree.content() == before
    dkms.ran.clear()
    assert not remove(dkms)[0]["changed"] and dkms.ran == []


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/var/lib/dkms/zfs/2.1/source", b""),
        ("/sys/firmware/efi/efivars/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23", b"\x06\0\0\0..pub\n.."),
        ("/sys/firmware/efi/efivars/MokNew-605dab50-e046-4300-abb6-3dd810dd8b23", b"\x06\0\0\0pub\n"),
    ],
)
def test_absent_keeps_a_signing_key_that_somebody_needs(dkms: FakeDkms, tree: Tree, path: str, content: bytes) -> None:
    Run(dkms)
    tree.file(path, content)
    remove(dkms)
    assert tree.root.exists("/var/lib/dkms/mok.key")


def test_absent_keeps_a_signing_key_that_was_there_before(dkms: FakeDkms, tree: Tree) -> None:
    tree.file("/var/lib/dkms/mok.key", "old")
    tree.file("/var/lib/dkms/mok.pub", "old")
    Run(dkms)
    remove(dkms)
    assert tree.root.exists("/var/lib/dkms/mok.key")


@pytest.mark.parametrize("damage", ["/usr/src/noiommu-1.0.0", "/var/lib/dkms/noiommu", "/usr/sbin/dkms"])
def test_absent_also_removes_what_dkms_does_not_know_any_more(dkms: FakeDkms, tree: Tree, damage: str) -> None:
    Run(dkms)
    tree.remove(damage)
    if damage.endswith("dkms"):
        dkms.failing["dkms remove"] = RunResult(127, "", "dkms: not found")
    remove(dkms)
    assert "noiommu" not in str(sorted(tree.content()))


def test_absent_removes_every_version_and_the_record(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms, source("0.9.0"))
    tree.file("/usr/src/noiommu-0.1/dkms.conf", 'PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="0.1"')
    tree.file(RECORD, "{}")
    remove(dkms)
    assert "noiommu" not in str(sorted(tree.content()))


def test_absent_says_why_a_source_is_still_there(dkms: FakeDkms, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(dkms)

    def full(_here: str, _there: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(HostError) as caught:
            remove(dkms)
    assert "renaming /usr/src/noiommu-1.0.0: No space left on device" in caught.value.evidence
    remove(dkms)
    assert "noiommu" not in str(sorted(tree.content()))


def test_absent_unloads_what_nobody_uses(dkms: FakeDkms, tree: Tree) -> None:
    tree.file("/sys/module/noiommu/refcnt", "0")
    assert remove(dkms)[0]["changed"] and not tree.root.exists("/sys/module/noiommu")
    assert dkms.ran == ["modprobe --remove noiommu"]


def test_absent_refuses_a_module_in_use(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    tree.file("/sys/module/noiommu/refcnt", "2")
    dkms.ran.clear()
    with pytest.raises(HostError) as caught:
        remove(dkms)
    assert caught.value.code == "module_in_use" and "refcnt: 2" in caught.value.evidence[0] and dkms.ran == []
    result, warnings = remove(dkms, check=True)
    assert result["changed"] and "in use" in warnings[0]


def test_absent_stops_where_the_module_cannot_be_unloaded(dkms: FakeDkms, tree: Tree) -> None:
    Run(dkms)
    tree.file("/sys/module/noiommu/refcnt", "0")
    dkms.failing["modprobe"] = RunResult(1, "", "FATAL: Module noiommu is in use.")
    with pytest.raises(HostError):
        remove(dkms)
    assert tree.root.exists("/usr/src/noiommu-1.0.0")
