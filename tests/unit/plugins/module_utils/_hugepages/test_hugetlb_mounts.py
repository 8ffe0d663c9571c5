# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts of hugetlbfs."""

from __future__ import annotations

import fcntl
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import escape
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.mounts import RECORD
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb_mounts import (
    GID,
    UID,
    UNITS,
    WANTS,
    Mounts,
    mount_at,
    run,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def refused(mounts: Mounts, *wanted: dict[str, Any]) -> HostError:
    """Return the error, after seeing that check mode and the real run raise it alike and that nothing changed."""
    before, ran = mounts.tree.content(), len(mounts.ran)
    with pytest.raises(HostError) as caught:
        run(mounts, *wanted, check=True)
    with pytest.raises(HostError) as again:
        run(mounts, *wanted)
    assert str(again.value) == str(caught.value)
    assert mounts.tree.content() == before and len(mounts.ran) == ran
    assert caught.value.evidence and caught.value.remedy
    return caught.value


def test_names_of_units_are_as_systemd_wants_them() -> None:
    assert escape("/dev/hugepages-1G") == "dev-hugepages\\x2d1G"
    assert escape("/srv/.huge/a.b_c+d/") == "srv-.huge-a.b_c\\x2bd"
    assert escape("/.huge") == "\\x2ehuge"


def test_mounted_now_and_at_every_boot(mounts: Mounts, tree: Tree) -> None:
    result = run(mounts, mount_at(limit="2G", gid=None, group="data", uid=None, owner="vpp"))
    options = "pagesize=1G,mode=0770,uid=%d,gid=%d,size=2147483648" % (UID, GID)
    assert result["changed"] and mounts.ran == [
        "mount -t hugetlbfs -o %s hugetlbfs /dev/huge-1G" % options,
        "systemctl daemon-reload",
    ]
    unit = "%s/dev-huge\\x2d1G.mount" % UNITS
    text = tree.root.read_text(unit)
    assert "Where=/dev/huge-1G\nType=hugetlbfs\nOptions=%s\n" % options in text
    assert os.readlink(tree.at(WANTS + "/dev-huge\\x2d1G.mount")) == unit
    assert result["mounts"] == [
        {"path": "/dev/huge-1G", "size": "1G", "mode": "0770", "uid": UID, "gid": GID, "limit": 2 << 30}
    ]


def test_check_mode_predicts_and_changes_nothing(mounts: Mounts, tree: Tree) -> None:
    for wanted in ([mount_at(), mount_at("/srv/a", "2M")], [mount_at(mode="0700")], []):
        before = tree.content()
        predicted = run(mounts, *wanted, check=True)
        assert tree.content() == before
        assert run(mounts, *wanted) == predicted and predicted["changed"]
        again = run(mounts, *wanted)
        assert not again["changed"] and again["diff"] == []


def test_absent_takes_mounts_units_and_made_directories_back(mounts: Mounts, tree: Tree) -> None:
    tree.dir("/srv")
    before = tree.content()
    run(mounts, mount_at(), mount_at("/srv/a/b", "2M"))
    run(mounts, mount_at())
    assert not tree.root.exists("/srv/a")
    run(mounts, state="absent")
    assert tree.content() == before
    assert not run(mounts, state="absent")["changed"]


def test_whoever_may_use_a_mount_gets_to_it_whatever_the_umask(mounts: Mounts, tree: Tree) -> None:
    before = os.umask(0o077)
    try:
        run(mounts, mount_at("/dev/huge/1G"))
    finally:
        os.umask(before)
    assert [tree.at(path).stat().st_mode & 0o7777 for path in ("/dev/huge", "/dev/huge/1G.hidden")] == [0o755, 0o755]


def test_a_mount_that_somebody_took_away_comes_back(mounts: Mounts) -> None:
    run(mounts, mount_at())
    mounts.run("umount", "/dev/huge-1G")
    assert run(mounts, mount_at())["changed"] and not run(mounts, mount_at())["changed"]


@pytest.mark.parametrize(
    ("first", "wanted"), [([], ["/srv/a/b"]), (["/srv/a/b"], []), (["/srv/a/b", "/m"], ["/srv/b/c"])]
)
def test_a_run_killed_anywhere_is_finished_and_taken_back(
    mounts: Mounts, tree: Tree, monkeypatch: pytest.MonkeyPatch, first: list[str], wanted: list[str]
) -> None:
    tree.dir("/srv")
    pristine = left(tree)
    before, declared = [mount_at(path) for path in first], [mount_at(path, "2M") for path in wanted]
    run(mounts, *before)
    run(mounts, *declared)
    finished = left(tree)
    run(mounts)
    killer = Killer(monkeypatch, (mounts, "run"))
    for steps in killer.each(lambda: run(mounts, *before), lambda: run(mounts, *declared)):
        run(mounts, *declared)
        assert left(tree) == finished, steps
        assert not run(mounts, *declared)["changed"]
        run(mounts)
        assert left(tree) == pristine, steps


def test_one_that_fails_takes_all_back(mounts: Mounts, tree: Tree) -> None:
    run(mounts, mount_at("/dev/old", "2M"))
    before = tree.content()
    mounts.fail = "mount -t hugetlbfs -o pagesize=2M"
    with pytest.raises(HostError, match="mount failed"):
        run(mounts, mount_at(), mount_at("/srv/b", "2M", mode="0777"), mount_at("/dev/old", "2M"))
    mounts.fail = None
    assert tree.content() == before
    mounts.fail = "umount"
    with pytest.raises(HostError, match="target is busy") as caught:
        run(mounts, mount_at())
    assert "fuser -vm /dev/old" in caught.value.remedy and tree.content() == before


def test_something_else_at_that_place_is_never_covered(mounts: Mounts, tree: Tree) -> None:
    tree.file("/srv/data/file")
    tree.file("/srv/file")
    tree.dir("/dev/hugepages")
    mounts.mount("/dev/hugepages", "pagesize=2M")
    assert refused(mounts, mount_at("/srv/data")).message == (
        "The directory /srv/data is not empty, and a mount would hide what is in it."
    )
    assert "Something else is mounted" in refused(mounts, mount_at("/dev/hugepages", "1G")).message
    assert "not a directory" in refused(mounts, mount_at("/srv/file")).message


@pytest.mark.parametrize(("path", "real"), [("/var/run/huge", "/run/huge"), ("/srv/huge", "/dev/huge-1G")])
def test_a_path_through_a_symbolic_link_is_refused(mounts: Mounts, tree: Tree, path: str, real: str) -> None:
    """The kernel shows the mount by its real path, and systemd refuses such a unit."""
    tree.link("/var/run", "/run")
    tree.link("/srv/huge", "/dev/huge-1G")
    error = refused(mounts, mount_at(path))
    assert error.message == "The mount point %s goes through a symbolic link." % path
    assert error.evidence == ["%s is really %s" % (path, real)] and real in error.remedy
    assert run(mounts, mount_at(real))["changed"] and not run(mounts, mount_at(real))["changed"]


def test_a_mount_of_somebody_else_that_is_as_declared_stays_his(mounts: Mounts, tree: Tree) -> None:
    tree.dir("/dev/hugepages")
    mounts.mount("/dev/hugepages", "pagesize=2M,mode=0770")
    assert "Something else is mounted" in refused(mounts, mount_at("/dev/hugepages", "2M")).message


def test_a_mount_with_files_is_never_taken_away(mounts: Mounts, tree: Tree) -> None:
    run(mounts, mount_at(), mount_at("/srv/b", "2M"))
    tree.file("/srv/b/pages")
    error = refused(mounts, mount_at())
    assert error.code == "mount_in_use" and error.evidence == ["/srv/b: pages"]
    assert refused(mounts, mount_at(), mount_at("/srv/b", "2M", mode="0700")).code == "mount_in_use"
    tree.remove("/srv/b/pages")
    tree.file("/srv/b/rtemap_0")
    assert run(mounts, mount_at())["left_over"] == ["/srv/b/rtemap_0"]


def test_files_of_a_mount_that_stays_are_not_touched(
    mounts: Mounts, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mounts, mount_at(), mount_at("/srv/b", "2M"))
    tree.file("/dev/huge-1G/rtemap_0")
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: pytest.fail("a lock was taken"))
    assert run(mounts, mount_at())["left_over"] == [] and tree.root.exists("/dev/huge-1G/rtemap_0")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (mount_at("relative"), "cannot be a mount point"),
        (mount_at("/a/../b"), "cannot be a mount point"),
        (mount_at("/a b"), "cannot be a mount point"),
        (mount_at(size="16M"), "no hugetlb pages of size 16M"),
        (mount_at(mode="rwx"), "'rwx' is not a mode"),
        (mount_at(mode="504"), "'504' is not a mode"),
        (mount_at(mode="02770"), "'02770' is not a mode"),
        (mount_at(uid=None, owner="nobody-here"), "There is no user nobody-here"),
        (mount_at(gid=GID + 1, group="data"), "has another number than declared"),
        (mount_at(limit="3M"), "not a whole number of pages"),
    ],
)
def test_a_wrong_declaration_is_explained(mounts: Mounts, wanted: dict[str, Any], message: str) -> None:
    assert message in refused(mounts, wanted).message


def test_a_mode_without_quotes_is_refused(mounts: Mounts) -> None:
    """YAML reads 0770 as the number 504, which would be octal, too."""
    error = refused(mounts, mount_at(mode=str(0o770)))
    assert error.evidence == ["mode: 504, without a leading zero"] and '"0770"' in error.remedy


@pytest.mark.parametrize("mode", ["0700", "01770", "0070"])
def test_modes_are_returned_as_they_are_declared(mounts: Mounts, mode: str) -> None:
    assert run(mounts, mount_at(mode=mode))["mounts"][0]["mode"] == mode
    assert not run(mounts, mount_at(mode=mode))["changed"]


def test_without_a_group_it_is_roots_in_a_dry_run_too(mounts: Mounts) -> None:
    wanted = mount_at(gid=None)
    assert run(mounts, wanted, check=True)["mounts"][0]["gid"] == 0


def test_a_group_that_an_earlier_task_makes_need_not_be_there_in_a_dry_run(mounts: Mounts) -> None:
    wanted = mount_at(gid=None, group="to-come")
    predicted = run(mounts, wanted, check=True)
    assert predicted["changed"] and predicted["mounts"][0]["gid"] is None
    with pytest.raises(HostError, match="There is no group to-come"):
        run(mounts, wanted)
    assert mounts.ran == []


def test_a_group_that_nobody_makes_is_refused_in_a_dry_run_too(mounts: Mounts) -> None:
    assert (
        refused(mounts, mount_at(gid=None, group="nobody-here")).message
        == "There is no group nobody-here on this host."
    )


@pytest.mark.parametrize("second", ["/srv/a", "/srv/a/b"])
def test_one_inside_the_other(mounts: Mounts, second: str) -> None:
    assert "one is inside the other" in refused(mounts, mount_at("/srv/a"), mount_at(second)).message


def test_a_damaged_record_is_refused(mounts: Mounts, tree: Tree) -> None:
    tree.file(RECORD, "[]")
    assert refused(mounts, mount_at()).code == "record"
