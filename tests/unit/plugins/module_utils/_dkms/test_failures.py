# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stops an installation, and what fails on the way and leaves the host as it was."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import Source
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_runs import (
    BOTH,
    Run,
    refused,
    remove,
    source,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

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
