# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an archive may hold, and where the controller keeps it."""

from __future__ import annotations

import gzip
import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.archive import Archive
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.prebuilt import (
    DIGEST,
    Run,
    build,
    made_for,
    refused,
)

# --- the controller's directory ---


def test_archives_are_kept_with_their_checksums(tmp: Path) -> None:
    directory = str(tmp / "new" / "archives")
    assert archives.stored(directory, "noiommu", "1.0.0", DIGEST) == {}
    name = archives.file_name("noiommu", "1.0.0", DIGEST, KERNEL, "x86_64")
    path = archives.store(directory, name, b"content")
    found = archives.stored(directory, "noiommu", "1.0.0", DIGEST)
    assert list(found) == [KERNEL] and archives.load(found[KERNEL]) == b"content"
    assert archives.stored(directory, "noiommu", "1.0.0", "f" * 64) == {}
    Path(path).write_bytes(b"other")
    with pytest.raises(HostError) as caught:
        archives.load(found[KERNEL])
    assert caught.value.code == "archive_checksum"
    Path(path + ".sha256").unlink()
    with pytest.raises(HostError) as caught:
        archives.stored(directory, "noiommu", "1.0.0", DIGEST)
    assert "no checksum" in caught.value.message


def test_of_many_that_store_the_same_name_at_once_the_first_stays(tmp: Path) -> None:
    name = archives.file_name("noiommu", "1.0.0", DIGEST, KERNEL, "x86_64")
    contents = [b"content %d" % number for number in range(16)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda content: archives.store(str(tmp), name, content), contents))
    assert sorted(os.listdir(tmp)) == [name, name + ".sha256"]
    kept = archives.load(archives.stored(str(tmp), "noiommu", "1.0.0", DIGEST)[KERNEL])  # with its own checksum
    archives.store(str(tmp), name, b"another builder's")
    assert kept in contents and (tmp / name).read_bytes() == kept


@pytest.mark.parametrize("noted", [b"", b"\xff\xfe", b"0f3a", b"G" * 64])
def test_a_checksum_that_is_none(tmp: Path, noted: bytes) -> None:
    path = archives.store(str(tmp), archives.file_name("noiommu", "1.0.0", DIGEST, KERNEL, "x86_64"), b"content")
    Path(path + ".sha256").write_bytes(noted)
    with pytest.raises(HostError) as caught:
        archives.stored(str(tmp), "noiommu", "1.0.0", DIGEST)
    assert caught.value.code == "archive_checksum"


# --- what an archive of a build host may hold ---


@pytest.mark.parametrize("name", ["e1000e.ko", "noiommu.ko.sh", "noiommu-x.ko", "..", ".profile", "xnoiommu.ko"])
def test_an_archive_holds_no_other_module(bare: FakeDkms, tmp: Path, name: str) -> None:
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL, modules={name: b"vermagic=%s " % KERNEL.encode()})})
    assert error.code == "archive" and "is not a file of the module noiommu" in error.evidence[0]


@pytest.mark.parametrize("arch", ["..", "x86_64 ", "A" * 40, "-x"])
def test_an_archive_is_for_an_architecture(arch: str) -> None:
    with pytest.raises(HostError, match="not one that this collection made"):
        archives.unpack(made_for(KERNEL, arch=arch), "here")


def test_an_archive_that_fills_the_memory_is_refused() -> None:
    with pytest.raises(HostError) as caught:
        archives.unpack(gzip.compress(bytes(65 << 20)), "here")
    assert "more than 64 MiB" in caught.value.evidence[0]


DAMAGED = {
    ".ko.xz": lzma.compress(b"vermagic=%s " % KERNEL.encode())[:-9],
    ".ko.gz": gzip.compress(b"vermagic=%s " % KERNEL.encode())[:-3] + b"xyz",
}


@pytest.mark.parametrize("suffix", sorted(DAMAGED))
def test_a_module_that_is_damaged_inside_its_archive(bare: FakeDkms, tmp: Path, suffix: str) -> None:
    error = refused(bare, tmp, {KERNEL: made_for(KERNEL, modules={"noiommu" + suffix: DAMAGED[suffix]})})
    assert error.code == "module_damaged" and "noiommu" + suffix in error.evidence[0]


def test_a_module_that_was_built_damaged_is_in_no_archive(builder: FakeDkms, tmp: Path) -> None:
    builder.packing = (".xz", lambda plain: lzma.compress(plain)[:-5])
    before = builder.tree.content()
    with pytest.raises(HostError) as caught:
        build(builder, tmp, [KERNEL])
    assert caught.value.code == "module_damaged"
    assert {path for path in builder.tree.content() if path not in before} <= {
        "/var/lib/dkms/mok.key",
        "/var/lib/dkms/mok.pub",
    }


def test_the_same_content_gives_the_same_bytes() -> None:
    assert made_for(KERNEL) == made_for(KERNEL)


def test_a_kernel_that_is_none_reaches_nothing(builder: FakeDkms, tmp: Path) -> None:
    for check in (True, False):
        with pytest.raises(HostError) as caught:
            build(builder, tmp, [KERNEL, "amd64,inetutils-telnetd"], check=check)
        assert caught.value.code == "kernel_release"
    assert builder.ran == []


def test_why_there_is_no_archive_is_said(bare: FakeDkms, tmp: Path) -> None:
    why = "builder: linux-headers-%s could not be installed: not found"
    error = refused(bare, tmp, {}, unbuilt={KERNEL: [why % KERNEL]})
    assert error.code == "archive_missing" and why % KERNEL in error.evidence
    run = Run(bare, tmp, {KERNEL: made_for(KERNEL)}, unbuilt={OTHER: [why % OTHER]})
    assert why % OTHER in run.result["failed_kernels"][OTHER] and any(
        why % OTHER in warning for warning in run.module.warnings
    )


def test_a_stored_name_without_a_release_is_another_file(tmp: Path) -> None:
    for kernel in (KERNEL, "..", "6.1.0,x", "x"):
        archives.store(str(tmp), archives.file_name("noiommu", "1.0.0", DIGEST, kernel, "x86_64"), b"content")
    assert list(archives.stored(str(tmp), "noiommu", "1.0.0", DIGEST)) == [KERNEL]


def test_an_archive_for_what_is_no_release(tmp: Path) -> None:
    packed = archives.pack(Archive("noiommu", "1.0.0", DIGEST, "..", "x86_64", {"noiommu.ko": b""}, b"", None))
    with pytest.raises(HostError) as caught:
        archives.unpack(packed, "here")
    assert caught.value.code == "kernel_release"
