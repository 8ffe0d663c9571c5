# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filesystem root: absence is an answer, writes are atomic, errors say what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ansible_collections.baremetal.noiommu.plugins.module_utils._errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._fs import Root, Runner
from ansible_collections.baremetal.noiommu.tests.unit.tree import Tree


def test_reading_what_is_not_there(tree: Tree) -> None:
    root = tree.root
    assert root.read_text("/x") is None and root.read_int("/x") is None and root.read_bytes("/x") is None
    assert root.link_name("/x") is None and root.listdir("/x") == [] and not root.exists("/x")


def test_reading_what_is_there(tree: Tree) -> None:
    tree.file("/sys/a/number", "0x10")
    tree.file("/sys/a/word", "  text ")
    tree.link("/sys/b/link", "/sys/a")
    root = tree.root
    assert root.read_int("/sys/a", "number") == 16 and root.read_int("/sys/a/word") is None
    assert root.read_text("/sys/b/link", "word") == "text"
    assert root.link_name("/sys/b/link") == "a" and root.realpath("/sys/b", "link") == "/sys/a"
    assert root.listdir("/sys/a") == ["number", "word"]


def test_a_dangling_link_exists(tree: Tree) -> None:
    tree.link("/a/dangling", "/nowhere")
    assert tree.root.exists("/a/dangling")


def test_the_live_root_is_recognised(tmp_path: Path) -> None:
    assert Root().is_live and not Root(str(tmp_path)).is_live


def test_writing_a_file_makes_directories_and_sets_the_mode(tree: Tree) -> None:
    tree.root.write_file("/etc/new/file", "text\n", 0o640)
    path = tree.at("/etc/new/file")
    assert path.read_text() == "text\n" and path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.file("/etc/file", "old")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError) as caught:
        tree.root.write_file("/etc/file", "new")
    assert tree.root.read_text("/etc/file") == "old" and os.listdir(tree.at("/etc")) == ["file"]
    assert "/etc/file" in caught.value.message and "ENOSPC" in caught.value.message
    assert "Free space" in caught.value.remedy


def test_links_are_replaced(tree: Tree) -> None:
    tree.root.write_link("/etc/wants/unit", "/etc/old")
    tree.root.write_link("/etc/wants/unit", "/etc/unit")
    assert os.readlink(tree.at("/etc/wants/unit")) == "/etc/unit"


def test_removing(tree: Tree) -> None:
    tree.file("/etc/dir/file", "x")
    assert not tree.root.remove_empty_dir("/etc/dir")
    assert tree.root.remove_file("/etc/dir/file") and not tree.root.remove_file("/etc/dir/file")
    assert tree.root.remove_empty_dir("/etc/dir") and not tree.root.remove_empty_dir("/etc/dir")


def test_what_is_not_there_needs_no_permission_to_be_removed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(_path: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "rmdir", read_only)
    monkeypatch.setattr(os, "unlink", read_only)
    assert not tree.root.remove_empty_dir("/nowhere") and not tree.root.remove_file("/nowhere")
    tree.dir("/somewhere")
    with pytest.raises(HostError, match="EROFS"):
        tree.root.remove_empty_dir("/somewhere")


def test_a_refused_kernel_write_names_path_value_and_errno(tree: Tree) -> None:
    with pytest.raises(HostError) as caught:
        tree.root.write_sysfs("/sys/none", "0000:00:04.0\n")
    assert caught.value.errno == errno.ENOENT
    assert "0000:00:04.0" in caught.value.message and "/sys/none" in caught.value.message


def test_runner(tmp_path: Path) -> None:
    assert Runner().run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    assert Runner().run("no-such-command-anywhere").rc == 127


def test_several_refusals_are_numbered() -> None:
    one = HostError("a", "First.", ["x is y"], "Do this.")
    assert str(Refused([one])) == "First. Evidence: x is y. Remedy: Do this."
    assert str(Refused([one, HostError("b", "Second.")])).endswith("2) Second.")
