# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filesystem root: absence is an answer, writes are atomic, errors say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


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


@pytest.fixture(params=["nameless files", "no nameless files", "not Linux"])
def filesystem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Filesystems with O_TMPFILE, and those without, such as an overlay on an old kernel, or any on a Mac."""
    if request.param == "not Linux":
        monkeypatch.delattr(os, "O_TMPFILE")
    elif request.param == "no nameless files":
        really = os.open

        def without(path: str, flags: int, *mode: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return really(path, flags, *mode)

        monkeypatch.setattr(os, "open", without)
    return str(request.param)


@pytest.mark.usefixtures("filesystem")
def test_a_file_is_replaced_and_its_second_name_is_gone(tree: Tree) -> None:
    for text in ("one", "two"):
        tree.root.write_file("/etc/file", text, 0o600)
        assert tree.root.read_text("/etc/file") == text and os.listdir(tree.at("/etc")) == ["file"]


class Killed(BaseException):
    """What ends a run without any clearing up."""


def test_a_run_that_is_killed_leaves_nothing_of_a_new_file(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_args: object, **_options: object) -> None:
        raise Killed

    for call in ("fchmod", "fsync", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, die)
            with pytest.raises(Killed):
                tree.root.write_file("/etc/new", "text")
        assert os.listdir(tree.at("/etc")) == []


@pytest.mark.usefixtures("filesystem")
def test_what_a_killed_run_left_goes_with_the_next(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_args: object) -> None:
        raise Killed

    for finish, left in (
        (lambda: tree.root.write_file("/etc/file", "new"), ["file"]),
        (lambda: tree.root.write_link("/etc/file", "/new"), ["file"]),
        (lambda: tree.root.remove_file("/etc/file"), []),
    ):
        tree.root.write_file("/etc/file", "old")
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", die)
            with pytest.raises(Killed):
                tree.root.write_file("/etc/file", "new")
        assert sorted(os.listdir(tree.at("/etc"))) == [".file.noiommu-new", "file"]
        finish()
        assert os.listdir(tree.at("/etc")) == left


@pytest.mark.usefixtures("filesystem")
@pytest.mark.parametrize("suffix", [".prom", ".conf", ".cfg", ".rules", ".service"])
def test_nobody_takes_a_second_name_for_a_file_of_his(tree: Tree, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """They go by the suffix, and not all of them pass over names with a dot in front: node_exporter does not."""

    def die(*_args: object) -> None:
        raise Killed

    tree.file("/etc/noiommu" + suffix, "old")
    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(Killed):
        tree.root.write_file("/etc/noiommu" + suffix, "new")
    assert len(os.listdir(tree.at("/etc"))) == 2
    assert [name for name in os.listdir(tree.at("/etc")) if name.endswith(suffix)] == ["noiommu" + suffix]


@pytest.mark.usefixtures("filesystem")
def test_trying_to_write_leaves_nothing(tree: Tree) -> None:
    tree.dir("/etc")
    tree.root.try_writing("/etc")
    assert os.listdir(tree.at("/etc")) == []
    with pytest.raises(FileNotFoundError):
        tree.root.try_writing("/nowhere")


class Disk:
    """What a power cut would take: names whose directory was not synced, and content of a file that was not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unsynced: set[str] = set()
        self.synced_files = 0
        fsync = os.fsync
        for name in ("mkdir", "rename", "link", "symlink", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._noting(getattr(os, name)))

        def note(handle: int) -> None:
            path = os.readlink("/proc/self/fd/%d" % handle)
            self.synced_files += not os.path.isdir(path)
            self.unsynced.discard(path)
            fsync(handle)

        monkeypatch.setattr(os, "fsync", note)

    def _noting(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **options: Any) -> None:
            real(*args, **options)
            # The last path is the name that is made; of a rename, the other one goes with it.
            paths = [args[-1]] if real.__name__ in ("link", "symlink") else list(args[:1])
            paths += [args[1]] if real.__name__ == "rename" else []
            self.unsynced |= {os.path.dirname(path) for path in paths if isinstance(path, str)}

        return call


@pytest.mark.usefixtures("filesystem")
def test_what_was_done_survives_a_power_cut(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.dir("/old")
    disk, root = Disk(monkeypatch), tree.root
    for act in (
        lambda: root.write_file("/var/lib/noiommu/originals.json", "{}"),  # the first one, whose directories are new
        lambda: root.write_file("/var/lib/noiommu/originals.json", "[]"),
        lambda: root.write_link("/etc/systemd/wants/unit", "/etc/unit"),
        lambda: root.write_link("/etc/systemd/wants/unit", "/etc/other"),
        lambda: root.rename("/old", "/var/new"),
        lambda: root.remove_file("/etc/systemd/wants/unit"),
        lambda: root.remove_empty_dir("/etc/systemd/wants"),
    ):
        act()
        assert disk.unsynced == set()
    assert disk.synced_files == 2


def test_the_content_is_synced_before_it_has_a_name(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.dir("/etc")
    disk, link = Disk(monkeypatch), os.link
    monkeypatch.setattr(os, "link", lambda *args, **options: (disk.synced_files == 1 or 1 / 0, link(*args, **options)))
    tree.root.write_file("/etc/file", "text")
    assert tree.root.read_text("/etc/file") == "text"


@pytest.mark.parametrize("number, fails", [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_directory_that_cannot_be_synced(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    fsync = os.fsync

    def refuse(handle: int) -> None:
        if os.path.isdir(os.readlink("/proc/self/fd/%d" % handle)):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(HostError, match="EIO") if fails else contextlib.nullcontext():
        tree.root.write_file("/etc/new/file", "text")


def test_links_are_replaced(tree: Tree) -> None:
    tree.root.write_link("/etc/wants/unit", "/etc/old")
    tree.root.write_link("/etc/wants/unit", "/etc/unit")
    assert os.readlink(tree.at("/etc/wants/unit")) == "/etc/unit"


@pytest.mark.parametrize("mask", [0o077, 0o027, 0])
def test_made_directories_are_for_everybody_to_pass_whatever_the_umask(tree: Tree, mask: int) -> None:
    before = os.umask(mask)
    try:
        tree.root.write_file("/etc/one/two/file", "text")
        tree.root.write_link("/dev/one/two/link", "/target")
    finally:
        assert os.umask(before) == mask
    for path in ("/etc", "/etc/one", "/etc/one/two", "/dev", "/dev/one", "/dev/one/two"):
        assert tree.at(path).stat().st_mode & 0o7777 == 0o755, path


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
    error = HostError("a", "First.", ["x is y"], "Do this.")
    assert str(Refused([error])) == "First. Evidence: x is y. Remedy: Do this."
    assert str(Refused([error, HostError("b", "Second.")])).endswith("2) Second.")


# --- device nodes ---


def test_a_device_node_is_known_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "another-name").symlink_to("/dev/null")
    assert Root("/").node(str(tmp_path), "another-name") == Root("/").node("/dev/null") == ("c", "1:3")
    assert Root("/").node("/etc/passwd") is None and Root("/").node("/none") is None


def test_another_root_has_no_devices(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    assert Root(str(tmp_path)).node("/null") is None
