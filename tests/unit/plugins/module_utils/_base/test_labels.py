# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SELinux labels of what is written. The policy's paths are read by the real libselinux, the kernel's part is faked."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import durable, labels
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PROGRAM = "system_u:object_r:bin_t:s0"
DATA = "system_u:object_r:var_lib_t:s0"


class Kernel:
    """What labels the kernel has, and what was there when one was set."""

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}
        self.visible: list[bool] = []
        self.refusal: int | None = None
        self.watched = ""
        self.inherited = "system_u:object_r:etc_t:s0"

    @staticmethod
    def name(target: int | str) -> str:
        return target if isinstance(target, str) else os.readlink("/proc/self/fd/%d" % target)

    def get(self, target: int | str, attribute: str, *, follow_symlinks: bool = True) -> bytes:
        assert attribute == "security.selinux" and follow_symlinks == isinstance(target, int)
        if self.refusal == errno.EOPNOTSUPP:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return self.inherited.encode() + b"\0"

    def set(self, target: int | str, attribute: str, label: bytes, *, follow_symlinks: bool = True) -> None:
        assert attribute == "security.selinux" and follow_symlinks == isinstance(target, int)
        if self.refusal:
            raise OSError(self.refusal, "refused")
        self.visible.append(os.path.lexists(self.watched))
        self.labels[self.name(target)] = label.decode().rstrip("\0")
        assert label.endswith(b"\0")


@pytest.fixture
def kernel(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A host with SELinux and a policy that knows some paths below the tree."""
    base = str(tree.base.resolve())
    contexts = tree.base / "policy/contexts/files"
    contexts.mkdir(parents=True)
    (contexts / "file_contexts").write_text(
        f"{base}/data(/.*)?\t{DATA}\n{base}/data/program\t--\t{PROGRAM}\n{base}/none(/.*)?\t<<none>>\n"
        f"{base}/data/link\t-l\tsystem_u:object_r:link_t:s0\n{base}/data/deep\t-d\tsystem_u:object_r:deep_t:s0\n"
    )
    tree.file("/enforce", "1")
    library = ctypes.CDLL("libselinux.so.1")
    library.selinux_set_policy_root(os.fsencode(tree.base / "policy"))
    policy = labels._policy
    policy.cache_clear()
    monkeypatch.setattr(labels, "_SELINUX", str(tree.at("/enforce")))
    found = Kernel()
    monkeypatch.setattr(os, "getxattr", found.get)
    monkeypatch.setattr(os, "setxattr", found.set)
    yield found
    policy.cache_clear()
    library.selinux_set_policy_root(b"/etc/selinux/targeted")


def test_a_file_has_the_policys_label_before_it_has_its_name(kernel: Kernel, tree: Tree) -> None:
    tree.dir("/data")
    kernel.watched = str(tree.at("/data/program"))
    tree.root.write_file("/data/program", "new", 0o755)
    assert list(kernel.labels.values()) == [PROGRAM] and kernel.visible == [False]


def test_one_that_replaces_another_has_it_before_it_takes_the_place(
    kernel: Kernel, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.file("/data/program", "old")
    seen = []

    def look(target: int | str, *_args: object, **_options: object) -> None:
        seen.append(tree.at("/data/program").read_text())

    monkeypatch.setattr(os, "setxattr", look)
    tree.root.write_file("/data/program", "new")
    assert seen == ["old\n"] and tree.at("/data/program").read_text() == "new"


def test_where_no_file_can_be_nameless(kernel: Kernel, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_open_nameless", lambda folder: None)
    tree.dir("/data")
    tree.root.write_file("/data/program", "new")
    assert list(kernel.labels.values()) == [PROGRAM]


def test_directories_that_are_made(kernel: Kernel, tree: Tree) -> None:
    tree.dir("/data")
    tree.root.make_dirs("/data/deep/er")
    assert kernel.labels == {
        str(tree.at("/data/deep")): "system_u:object_r:deep_t:s0",
        str(tree.at("/data/deep/er")): DATA,
    }


@pytest.mark.parametrize("there", [False, True])
def test_symbolic_links(kernel: Kernel, tree: Tree, there: bool) -> None:
    tree.dir("/data")
    if there:
        tree.link("/data/link", "/data/old")
    tree.root.write_link("/data/link", "/data/target")
    assert set(kernel.labels.values()) == {"system_u:object_r:link_t:s0"}


def test_a_path_through_a_link_is_the_same_file(kernel: Kernel, tree: Tree) -> None:
    tree.dir("/data")
    tree.at("/alias").symlink_to(tree.at("/data"))
    tree.root.write_file("/alias/program", "new")
    assert list(kernel.labels.values()) == [PROGRAM]


def test_what_is_right_already_is_not_set(kernel: Kernel, tree: Tree) -> None:
    tree.dir("/data")
    kernel.inherited = DATA
    tree.root.write_file("/data/other", "new")
    assert kernel.labels == {}


@pytest.mark.parametrize("path", ["/none/file", "/elsewhere/file"])
def test_a_path_that_the_policy_has_no_label_for(kernel: Kernel, tree: Tree, path: str) -> None:
    tree.root.write_file(path, "new")
    assert kernel.labels == {} and tree.at(path).read_text() == "new"


@pytest.mark.parametrize("refusal", [errno.EOPNOTSUPP, errno.EACCES, errno.EINVAL])
def test_a_refused_label_costs_no_file(kernel: Kernel, tree: Tree, refusal: int) -> None:
    kernel.refusal = refusal
    tree.root.write_file("/data/program", "new")
    tree.root.write_link("/data/link", "/data/target")
    assert tree.at("/data/program").read_text() == "new" and os.path.islink(tree.at("/data/link"))


def test_without_selinux_nothing_is_asked(kernel: Kernel, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.remove("/enforce")
    monkeypatch.setattr(labels, "_policy", lambda: pytest.fail("the policy was opened"))
    tree.root.write_file("/data/program", "new")
    tree.root.write_link("/data/link", "/data/target")
    assert kernel.labels == {}


def test_a_host_without_the_library(kernel: Kernel, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ctypes.CDLL

    def load(name: str | None) -> ctypes.CDLL:
        if name:
            raise OSError("cannot open shared object file")
        return real(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    labels._policy.cache_clear()
    tree.root.write_file("/data/program", "new")
    assert kernel.labels == {} and Path(tree.at("/data/program")).exists()
