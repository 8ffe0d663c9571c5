# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import (
    digest,
    pack,
    read_conf,
    read_source,
    unpack,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

CONF = 'PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="1.0.0"'


def test_only_source_is_read(tree: Tree) -> None:
    for name in ("dkms.conf", "Kbuild", "Makefile", "README.md", "COPYING", "a.c", "a.h", "uapi/b.h"):
        tree.file("/src/" + name, "x")
    for name in (
        "a.o",
        "a.ko",
        "a.mod",
        "a.mod.c",
        ".a.o.cmd",
        "Module.symvers",
        ".git/x.c",
        "tests/t.c",
        "examples/e.c",
        "a.c~",
    ):
        tree.file("/src/" + name, "y")
    source = read_source(tree.root.path("/src"))
    assert sorted(source) == ["COPYING", "Kbuild", "Makefile", "README.md", "a.c", "a.h", "dkms.conf", "uapi/b.h"]


def test_the_modules_own_source_is_read_completely() -> None:
    here = os.path.join(os.path.dirname(__file__), "../../../../../kmod")
    source = read_source(here)
    assert read_conf(source, here).name == "noiommu"
    assert {"Kbuild", "Makefile", "dkms.conf", "include/uapi/noiommu.h"} < set(source)


def test_the_digest_is_of_paths_and_contents() -> None:
    assert digest({"a": b"1", "b": b"2"}) == digest({"b": b"2", "a": b"1"})
    different = [{"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a": b"1", "b": b""}, {"ab": b"1"}, {}]
    assert len({digest(files) for files in different}) == len(different)


def test_an_archive_is_reproducible_and_comes_back_as_it_was() -> None:
    source = {"dkms.conf": CONF.encode(), "uapi/b.h": b"\xff\x00"}
    assert pack(source) == pack(dict(reversed(source.items())))
    assert unpack(pack(source)) == source


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_an_archive_cannot_reach_outside(name: str) -> None:
    with pytest.raises(HostError):
        unpack(pack({name: b"x"}))


def test_an_archive_with_a_link_is_refused() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.c")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(member)
    with pytest.raises(HostError):
        unpack(packed.getvalue())


def test_an_archive_that_is_damaged_anywhere_is_refused() -> None:
    packed = pack({"dkms.conf": CONF.encode()})
    for place in range(len(packed)):
        for damaged in (packed[:place], packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :]):
            try:
                unpack(damaged)  # some bytes, such as the header's time, mean nothing
            except HostError as error:
                assert error.code == "archive" and error.evidence and error.remedy


def test_an_archive_that_fills_the_memory_is_refused() -> None:
    with pytest.raises(HostError, match="damaged"):
        unpack(gzip.compress(bytes(65 << 20)))


def test_name_and_version_come_from_dkms_conf() -> None:
    assert read_conf({"dkms.conf": CONF.encode()}, "kmod") == ("noiommu", "1.0.0")
    assert read_conf({"dkms.conf": CONF.replace('"', "").encode()}, "kmod") == ("noiommu", "1.0.0")


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"dkms.conf": b"PACKAGE_NAME=x"},
        {"dkms.conf": b'PACKAGE_NAME="x"\nPACKAGE_VERSION="$(date)"'},
        {"dkms.conf": b"\xff\xfe"},
    ],
)
def test_a_source_that_does_not_say_what_it_is(source: dict[str, bytes]) -> None:
    with pytest.raises(HostError) as caught:
        read_conf(source, "kmod")
    assert "dkms.conf" in caught.value.message and caught.value.remedy
