# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module from an archive, on a host without a compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.archive import Archive
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import pack
from ansible_collections.baremetal.noiommu.plugins.modules import dkms_module
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.prebuilt import (
    SOURCE,
    ZSTD,
    Run,
    made_for,
    params,
    refused,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

RECORD = "/var/lib/noiommu/dkms-noiommu.json"
INSTALLED = "/lib/modules/%s/updates/dkms/noiommu.ko"
BOTH = {KERNEL: "installed", OTHER: "installed"}
SIGNED = b"vermagic=%s ~Module signature appended~\n" % KERNEL.encode()
CERTIFICATE = b"\x06\x03\x55\x1d\x0e\x04\x04\x04\x02\xab\xcd"


# --- a host without a compiler ---


def test_installed_where_dkms_would_have_put_it(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    run = Run(bare, tmp, packed)
    assert run.result["changed"] and run.sent == [KERNEL, OTHER]
    assert run.result["before"] == {KERNEL: "absent", OTHER: "absent"} and run.result["after"] == BOTH
    assert b"vermagic=" + OTHER.encode() in (bare.tree.root.read_bytes(INSTALLED % OTHER) or b"")
    assert bare.ran == ["depmod " + KERNEL, "depmod " + OTHER]


def test_converged_sends_nothing_and_runs_nothing(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    Run(bare, tmp, packed)
    bare.ran.clear()
    whole = bare.tree.content()
    for available in (packed, {}):  # also where the controller has lost its archives
        run = Run(bare, tmp, available)
        assert not run.result["changed"] and not run.sent and run.result["failed_kernels"] == {}
    assert bare.ran == [] and bare.tree.content() == whole


def test_check_mode_predicts(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    before = bare.tree.content()
    predicted = Run(bare, tmp, packed, check=True)
    assert bare.tree.content() == before and bare.ran == []
    real = Run(bare, tmp, packed)
    for key in ("changed", "before", "after", "replaced", "failed_kernels", "diff"):
        assert real.result[key] == predicted.result[key]


def test_check_mode_before_anything_was_built_is_a_warning(bare: FakeDkms, tmp: Path) -> None:
    run = Run(bare, tmp, {}, check=True)
    assert KERNEL in run.module.warnings[0] and "fixed first" in run.module.warnings[0]


def test_the_running_kernel_without_an_archive_is_an_error_naming_it(bare: FakeDkms, tmp: Path) -> None:
    error = refused(bare, tmp, {OTHER: made_for(OTHER)})
    assert error.code == "archive_missing" and KERNEL in error.message and OTHER in error.evidence[0]


def test_another_kernel_without_an_archive_is_reported(bare: FakeDkms, tmp: Path) -> None:
    run = Run(bare, tmp, {KERNEL: made_for(KERNEL)})
    assert run.result["after"] == {KERNEL: "installed", OTHER: "absent"} and OTHER in run.result["failed_kernels"]
    assert OTHER in run.module.warnings[0]
    again = Run(bare, tmp, {KERNEL: made_for(KERNEL)})
    assert not again.result["changed"] and OTHER in again.result["failed_kernels"]


def test_a_named_kernel_without_an_archive_is_an_error(bare: FakeDkms, tmp: Path) -> None:
    assert refused(bare, tmp, {KERNEL: made_for(KERNEL)}, kernels=[OTHER]).code == "archive_missing"
    assert refused(bare, tmp, {}, kernels=["7.7.7"]).code == "kernel"


@pytest.mark.parametrize("damage", ["tampered", "lost"])
def test_what_was_changed_is_mended(bare: FakeDkms, tmp: Path, packed: dict[str, bytes], damage: str) -> None:
    Run(bare, tmp, packed)
    whole = bare.tree.content()
    if damage == "lost":
        bare.tree.remove(INSTALLED % KERNEL)
    else:
        bare.tree.file(INSTALLED % KERNEL, "tampered")
    run = Run(bare, tmp, packed)
    assert run.sent == [KERNEL] and run.result["before"][KERNEL] == ("absent" if damage == "lost" else "differs")
    assert bare.tree.content() == whole


def test_a_new_archive_of_the_same_source_is_taken(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    """As after the build host got another signing key."""
    Run(bare, tmp, packed)
    packed[KERNEL] = made_for(KERNEL, modules={"noiommu.ko": b"\x7fELF vermagic=%s new" % KERNEL.encode()})
    assert Run(bare, tmp, packed).sent == [KERNEL]
    assert not Run(bare, tmp, packed).result["changed"]


def test_a_removed_kernel_is_cleared(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    Run(bare, tmp, packed)
    bare.tree.remove("/lib/modules/%s/kernel" % OTHER)
    run = Run(bare, tmp, packed)
    assert run.result["changed"] and not bare.tree.root.exists(INSTALLED % OTHER)
    assert not Run(bare, tmp, packed).result["changed"]


def test_absent_takes_everything_back(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    before = bare.tree.content()
    Run(bare, tmp, packed)
    module = FakeModule({"name": "noiommu"}, False)
    result = dkms_module.absent(module, bare.tree.root, bare)
    assert result["changed"] and result["before"] == BOTH
    after = bare.tree.content()
    assert {path for path in after if "noiommu" in path} == set()
    assert set(after) - set(before) <= {"/var/lib/noiommu", "/usr"}
    assert not dkms_module.absent(module, bare.tree.root, bare)["changed"]


@pytest.mark.parametrize(
    ("packed", "code", "said"),
    [
        (made_for(OTHER), "archive", OTHER),
        (made_for(KERNEL, version="9.9"), "archive", "9.9"),
        (made_for(KERNEL, digest="0" * 64), "archive", "000"),
        (made_for(KERNEL, arch="sparc"), "archive", "sparc"),
        (made_for(KERNEL, modules={"noiommu.ko": b"\x7fELF vermagic=6.6.6 SMP"}), "archive", "6.6.6"),
        (b"no archive", "archive", "BadGzipFile"),
        (archives.pack(Archive("a", "1", "d", "k", "x", {}, b"", None)), "archive", "ValueError"),
    ],
)
def test_an_archive_that_does_not_fit(bare: FakeDkms, tmp: Path, packed: bytes, code: str, said: str) -> None:
    error = refused(bare, tmp, {KERNEL: packed})
    assert error.code == code and said in str(error.evidence)


def test_an_archive_that_arrives_damaged(bare: FakeDkms, tmp: Path) -> None:
    (tmp / "a").write_bytes(made_for(KERNEL) + b"x")
    given = {"available": {KERNEL: archives.sha256(made_for(KERNEL))}, "archive_files": {KERNEL: str(tmp / "a")}}
    with pytest.raises(HostError) as caught:
        dkms_module.present(FakeModule(params(**given)), bare.tree.root, bare)
    assert caught.value.code == "archive_checksum"
    (tmp / "a").unlink()
    with pytest.raises(HostError) as caught:
        dkms_module.present(FakeModule(params(**given)), bare.tree.root, bare)
    assert "did not arrive" in caught.value.message


def test_a_failing_depmod_leaves_the_old_module(bare: FakeDkms, tmp: Path, packed: dict[str, bytes]) -> None:
    Run(bare, tmp, packed)
    new = {kernel: made_for(kernel, modules={"noiommu.ko": b"vermagic=%s new" % kernel.encode()}) for kernel in packed}
    bare.failing["depmod " + OTHER] = RunResult(1, "", "depmod: ERROR: No space left on device\n")
    error = refused(bare, tmp, new)
    assert error.code == "install_failed" and "No space left" in str(error.evidence)


def test_only_signed_and_trusted_modules_where_that_is_demanded(bare: FakeDkms, tmp: Path) -> None:
    bare.tree.file("/sys/module/module/parameters/sig_enforce", "Y")
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL)})
    assert error.code == "not_signed" and "noiommu.ko: no signature" in error.evidence
    packed = {KERNEL: made_for(KERNEL, modules={"noiommu.ko": SIGNED}, certificate=CERTIFICATE)}
    error = refused(bare, tmp, packed)
    assert error.code == "key_not_enrolled" and "mokutil --import" in error.remedy
    bare.tree.file("/proc/keys", "asymmetri DKMS module signing key: abcd: X509.rsa abcd []")
    assert Run(bare, tmp, packed).result["after"][KERNEL] == "installed"


def test_a_module_that_cannot_be_looked_into_is_called_neither_signed_nor_unsigned(bare: FakeDkms, tmp: Path) -> None:
    bare.tree.file("/sys/module/module/parameters/sig_enforce", "Y")
    modules = {"noiommu.ko" + ZSTD[0]: ZSTD[1](SIGNED)}
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL, modules=modules)})
    assert error.code == "not_signed" and "no signature" not in str(error.evidence)
    packed = {KERNEL: made_for(KERNEL, modules=modules, certificate=CERTIFICATE)}
    assert refused(bare, tmp, packed).code == "key_not_enrolled"
    bare.tree.file("/proc/keys", "asymmetri DKMS module signing key: abcd: X509.rsa abcd []")
    assert Run(bare, tmp, packed).result["after"][KERNEL] == "installed"


# --- from one way to the other ---


def test_from_built_here_to_prebuilt_and_back(tree: Tree, tmp: Path, packed: dict[str, bytes]) -> None:
    build_host(tree)
    dkms = FakeDkms(tree)

    def on_host() -> dict[str, Any]:
        with open(tmp / "source", "wb") as stream:
            stream.write(pack(SOURCE))
        module = FakeModule(params(build="on_host", archive=str(tmp / "source")))
        return dkms_module.present(module, tree.root, dkms)

    on_host()
    built = tree.content()
    run = Run(dkms, tmp, packed)
    assert run.result["replaced"] == ["1.0.0"] and not tree.root.exists("/usr/src/noiommu-1.0.0")
    assert not Run(dkms, tmp, packed).result["changed"]
    assert on_host()["changed"]
    kept = {path: text for path, text in tree.content().items() if path != RECORD}
    assert kept == {path: text for path, text in built.items() if path != RECORD}
    assert not on_host()["changed"]
