# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The DKMS module removed."""

from __future__ import annotations

import errno
import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_runs import (
    BOTH,
    RECORD,
    Run,
    remove,
    source,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

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
