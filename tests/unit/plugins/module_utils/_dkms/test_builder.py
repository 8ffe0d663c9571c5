# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The build host, and two builders on one host."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, pack
from ansible_collections.baremetal.noiommu.plugins.modules import dkms_module
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.prebuilt import (
    DIGEST,
    SOURCE,
    ZSTD,
    build,
    params,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def fetched(dkms: FakeDkms, kernel: str) -> bytes:
    """Return the archive that the action plugin would fetch."""
    return dkms.tree.root.read_bytes("/tmp", archives.remote_name(kernel)) or b""


def test_each_kernel_is_built_once_and_nothing_is_installed(builder: FakeDkms, tmp: Path) -> None:
    builder.tree.file("/var/lib/dkms/mok.key", "key")
    builder.tree.file("/var/lib/dkms/mok.pub", "pub")
    before = builder.tree.content()
    made = build(builder, tmp, [KERNEL, OTHER])["made"]
    assert sorted(made) == [KERNEL, OTHER]
    assert len([line for line in builder.ran if line.startswith("dkms build")]) == 2
    for kernel, checksum in made.items():
        content = fetched(builder, kernel)
        assert archives.sha256(content) == checksum
        archive = archives.unpack(content, kernel)
        assert (archive.kernel, archive.digest) == (kernel, DIGEST) and kernel.encode() in archive.modules["noiommu.ko"]
        builder.tree.remove("/tmp/" + archives.remote_name(kernel))
    assert builder.tree.content() == before


def test_the_certificate_travels_with_signed_modules(builder: FakeDkms, tmp: Path) -> None:
    builder.signs = True
    build(builder, tmp, [KERNEL])
    assert archives.unpack(fetched(builder, KERNEL), "x").certificate == b"pub\n"


@pytest.mark.parametrize(
    ("packing", "signs", "travels"),
    [((".gz", gzip.compress), True, True), ((".gz", gzip.compress), False, False), (ZSTD, True, True)],
)
def test_the_certificate_travels_unless_a_module_is_known_to_be_unsigned(
    builder: FakeDkms, tmp: Path, packing: tuple[str, Callable[[bytes], bytes]], signs: bool, travels: bool
) -> None:
    builder.signs, builder.packing = signs, packing
    build(builder, tmp, [KERNEL])
    archive = archives.unpack(fetched(builder, KERNEL), "x")
    assert list(archive.modules) == ["noiommu.ko" + packing[0]] and (archive.certificate == b"pub\n") is travels


def test_missing_packages_are_reported_for_the_role_to_install(builder: FakeDkms, tmp: Path) -> None:
    builder.tree.remove("/usr/sbin/dkms")
    result = build(builder, tmp, [KERNEL, "6.6.6"], check=True)
    assert {"dkms", "linux-headers-6.6.6"} <= set(result["packages_missing"]) and "6.6.6" in result["failed_kernels"]
    with pytest.raises(HostError) as caught:
        build(builder, tmp, [KERNEL])
    assert caught.value.code == "build_tools_missing"


def test_what_cannot_be_built_does_not_stop_the_others(builder: FakeDkms, tmp: Path) -> None:
    builder.failing["-k " + KERNEL] = RunResult(10, "", "a.c:1:1: error: oops")
    result = build(builder, tmp, [KERNEL, OTHER, "6.6.6"])
    assert list(result["made"]) == [OTHER] and sorted(result["failed_kernels"]) == sorted([KERNEL, "6.6.6"])


# --- two builders on one host ---


class OtherBuilder(FakeDkms):
    """While it builds for the first one, a second one comes with another source, and no lock holds it back."""

    def __init__(self, tree: Tree, tmp: Path) -> None:
        super().__init__(tree)
        self._tmp, self.second = tmp, None

    def run(self, *argv: str) -> RunResult:
        if argv[:2] == ("dkms", "build") and self.second is None:
            self.second = FakeDkms(self.tree)
            theirs = {**SOURCE, "noiommu.c": b"int theirs;"}
            (self._tmp / "theirs").write_bytes(pack(theirs))
            given = params(
                kernels=[KERNEL], digest=digest(theirs), archive=str(self._tmp / "theirs"), destination="/theirs"
            )
            dkms_module.archived(FakeModule(given), self.tree.root, self.second)
        return super().run(*argv)


def test_two_builders_never_mix(tree: Tree, tmp: Path) -> None:
    build_host(tree)
    first = OtherBuilder(tree, tmp)
    try:
        build(first, tmp, [KERNEL])
        code = archives.unpack(fetched(first, KERNEL), "x").modules["noiommu.ko"]
        assert b"int a;" in code and b"theirs" not in code
    except HostError:
        assert fetched(first, KERNEL) == b""
    theirs = archives.unpack(tree.root.read_bytes("/theirs", archives.remote_name(KERNEL)) or b"", "x")
    assert b"int theirs;" in theirs.modules["noiommu.ko"]


def test_a_source_that_changes_under_the_build_makes_no_archive(builder: FakeDkms, tmp: Path) -> None:
    real = builder.run

    def run(*argv: str) -> RunResult:
        done = real(*argv)
        if argv[:2] == ("dkms", "build"):
            (stage,) = [entry for entry in builder.tree.root.listdir("/var/lib/dkms") if "stage" in entry]
            builder.tree.file("/var/lib/dkms/%s/source/noiommu-1.0.0/noiommu.c" % stage, "int evil;")
        return done

    builder.run = run  # type: ignore[method-assign]
    with pytest.raises(HostError) as caught:
        build(builder, tmp, [KERNEL])
    assert caught.value.code == "build_mixed" and fetched(builder, KERNEL) == b""


@pytest.mark.parametrize("state", ["present", "absent", "archived"])
def test_every_state_waits_for_other_runs_on_the_host(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(dkms_module, "AnsibleModule", lambda **_spec: FakeModule({"state": state}))
    monkeypatch.setattr(dkms_module, "run", lambda _module, _act, **how: asked.update(how))
    dkms_module.main()
    assert asked == {"lock_wait": 900.0}  # and not reads_only
