# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.files import REMOVED, FileSet, RenderedFile
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def test_writes_and_removes_what_differs(tree: Tree) -> None:
    tree.file("/etc/old", "x")
    wanted = [RenderedFile("/etc/a/new", "hello\n", 0o640), RenderedFile("/etc/old", None)]
    files = FileSet(tree.root, wanted)
    assert files.changed and files.changed_paths == ["/etc/a/new", "/etc/old"]
    files.apply()
    assert tree.content("/etc") == {"/etc/a": "dir", "/etc/a/new": "hello\n"}
    assert tree.at("/etc/a/new").stat().st_mode & 0o7777 == 0o640
    assert not FileSet(tree.root, wanted).changed


def test_what_is_absent_and_shall_be_is_no_change(tree: Tree) -> None:
    assert not FileSet(tree.root, [RenderedFile("/etc/none", None)]).changed


def test_a_mode_alone_is_a_change_and_shows_in_the_diff(tree: Tree) -> None:
    tree.file("/etc/a", "x")
    tree.at("/etc/a").chmod(0o600)
    files = FileSet(tree.root, [RenderedFile("/etc/a", "x\n")])
    assert files.changed
    assert files.diff() == [
        {
            "before_header": "/etc/a (mode 0600)",
            "after_header": "/etc/a (mode 0644)",
            "before": "x\n",
            "after": "x\n",
        }
    ]


def test_a_diff_shows_new_files_and_names_removed_ones(tree: Tree) -> None:
    for path in ("/etc/b", "/etc/c"):
        tree.file(path, "y")
        tree.at(path).chmod(0o644)
    wanted = [RenderedFile("/etc/b", None), RenderedFile("/etc/a", "x\n"), RenderedFile("/etc/c", None)]
    assert FileSet(tree.root, wanted).diff() == [
        {"before_header": "/etc/a (absent)", "after_header": "/etc/a (mode 0644)", "before": "", "after": "x\n"},
        {"before_header": REMOVED, "after_header": REMOVED, "before": "/etc/b\n/etc/c\n", "after": ""},
    ]


def test_rollback_puts_everything_back(tree: Tree) -> None:
    tree.file("/etc/keep", "old")
    tree.file("/etc/gone", "there")
    before = tree.content()
    files = FileSet(
        tree.root,
        [RenderedFile("/etc/keep", "new\n"), RenderedFile("/etc/gone", None), RenderedFile("/etc/a/b/c", "x\n")],
    )
    files.apply()
    assert tree.content() != before
    files.rollback()
    assert tree.content() == before


def test_symbolic_links_are_files_too(tree: Tree) -> None:
    tree.file("/etc/taken", "x")
    wanted = [RenderedFile("/etc/a/link", "../b", link=True), RenderedFile("/etc/taken", "b", link=True)]
    before = tree.content()
    files = FileSet(tree.root, wanted)
    assert files.diff()[0]["after_header"] == "/etc/a/link (symbolic link)"
    files.apply()
    assert tree.content("/etc") == {"/etc/a": "dir", "/etc/a/link": "-> ../b", "/etc/taken": "-> b"}
    assert not FileSet(tree.root, wanted).changed
    assert FileSet(tree.root, [RenderedFile("/etc/taken", "c", link=True)]).changed
    gone = FileSet(tree.root, [RenderedFile("/etc/a/link", None, link=True)])
    gone.apply()
    assert not tree.root.exists("/etc/a/link")
    gone.rollback()
    files.rollback()
    assert tree.content() == before


def test_a_failure_half_way_puts_everything_back(tree: Tree) -> None:
    tree.file("/etc/keep", "old")
    tree.file("/etc/file", "not a directory")
    before = tree.content()
    files = FileSet(tree.root, [RenderedFile("/etc/keep", "new\n"), RenderedFile("/etc/file/below", "x\n")])
    with pytest.raises(HostError) as caught:
        files.apply()
    assert caught.value.code == "file"
    assert tree.content() == before


def test_something_else_in_the_place_of_a_file_is_refused(tree: Tree) -> None:
    tree.dir("/etc/a")
    with pytest.raises(HostError) as caught:
        FileSet(tree.root, [RenderedFile("/etc/a", "x\n")])
    assert "/etc/a" in caught.value.message
