# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import escape
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.mounts import RECORD
from ansible_collections.baremetal.noiommu.plugins.modules import hugepages
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import FakeGrub
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

UID, GID = os.getuid(), os.getgid()
UNITS = "/etc/systemd/system"
WANTS = UNITS + "/multi-user.target.wants"


class Mounts(Runner):
    """mount and umount, on the tree's mountinfo: what is mounted hides what was there."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.ran: list[str] = []
        self.fail: str | None = None
        self._mounted: dict[str, str] = {}
        tree.dir("/sys/kernel/mm/hugepages/hugepages-2048kB")
        tree.dir("/sys/kernel/mm/hugepages/hugepages-1048576kB")
        tree.dir(WANTS)
        tree.dir("/var/lib")
        tree.dir("/dev")
        tree.dir("/run/systemd/system")
        tree.file("/etc/group", "root:x:0:\ndata:x:%d:" % GID)
        tree.file("/etc/passwd", "root:x:0:0::/:/bin/sh\nvpp:x:%d:1::/:/bin/sh" % UID)
        self._show()

    def _show(self) -> None:
        lines = ["22 1 0:5 / / rw - ext4 /dev/sda1 rw"]
        lines += ["30 22 0:27 / %s rw - hugetlbfs hugetlbfs %s" % mount for mount in sorted(self._mounted.items())]
        self.tree.file("/proc/1/mountinfo", "\n".join(lines))

    def mount(self, path: str, options: str) -> None:
        """As the kernel does it."""
        fields = dict(option.split("=") for option in options.split(",") if "=" in option)
        beside = Path(str(self.tree.at(path)) + ".hidden")
        self.tree.at(path).rename(beside)
        self.tree.dir(path)
        os.chmod(self.tree.at(path), int(fields.get("mode", "755"), 8))
        shown = ["%s=%s" % pair for pair in fields.items() if pair[0] in ("mode", "size")]
        self._mounted[path] = ",".join(["rw", *shown, "pagesize=" + fields["pagesize"].replace("1G", "1024M")])
        self._show()

    def run(self, *argv: str) -> RunResult:
        self.ran.append(" ".join(argv))
        if self.fail and self.ran[-1].startswith(self.fail):
            return RunResult(32, "", "%s: target is busy." % argv[-1])
        if argv[0] == "mount":
            self.mount(argv[-1], argv[4])
        elif argv[0] == "umount":
            self.tree.remove(argv[1])
            Path(str(self.tree.at(argv[1])) + ".hidden").rename(self.tree.at(argv[1]))
            del self._mounted[argv[1]]
            self._show()
        return RunResult(0, "", "")


@pytest.fixture
def mounts(tree: Tree) -> Mounts:
    return Mounts(tree)


def one(path: str = "/dev/huge-1G", size: str = "1G", **more: Any) -> dict[str, Any]:
    nothing = {"uid": UID, "owner": None, "gid": GID, "group": None, "limit": None, "mode": "0770"}
    return {"path": path, "size": size, **nothing, **more}


def run(mounts: Mounts, *wanted: dict[str, Any], check: bool = False, state: str = "present") -> dict[str, Any]:
    module = FakeModule(
        {
            "pools": None,
            "persistent": True,
            "mounts": list(wanted),
            "state": state,
            "groups_to_come": ["to-come"],
            "host_memory": None,
        },
        check,
    )
    return hugepages.hugepages(module, mounts.tree.root, mounts)


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
    result = run(mounts, one(limit="2G", gid=None, group="data", uid=None, owner="vpp"))
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
    for wanted in ([one(), one("/srv/a", "2M")], [one(mode="0700")], []):
        before = tree.content()
        predicted = run(mounts, *wanted, check=True)
        assert tree.content() == before
        assert run(mounts, *wanted) == predicted and predicted["changed"]
        again = run(mounts, *wanted)
        assert not again["changed"] and again["diff"] == []


def test_absent_takes_mounts_units_and_made_directories_back(mounts: Mounts, tree: Tree) -> None:
    tree.dir("/srv")
    before = tree.content()
    run(mounts, one(), one("/srv/a/b", "2M"))
    run(mounts, one())
    assert not tree.root.exists("/srv/a")
    run(mounts, state="absent")
    assert tree.content() == before
    assert not run(mounts, state="absent")["changed"]


def test_whoever_may_use_a_mount_gets_to_it_whatever_the_umask(mounts: Mounts, tree: Tree) -> None:
    before = os.umask(0o077)
    try:
        run(mounts, one("/dev/huge/1G"))
    finally:
        os.umask(before)
    assert [tree.at(path).stat().st_mode & 0o7777 for path in ("/dev/huge", "/dev/huge/1G.hidden")] == [0o755, 0o755]


def test_a_mount_that_somebody_took_away_comes_back(mounts: Mounts) -> None:
    run(mounts, one())
    mounts.run("umount", "/dev/huge-1G")
    assert run(mounts, one())["changed"] and not run(mounts, one())["changed"]


@pytest.mark.parametrize(
    ("first", "wanted"), [([], ["/srv/a/b"]), (["/srv/a/b"], []), (["/srv/a/b", "/m"], ["/srv/b/c"])]
)
def test_a_run_killed_anywhere_is_finished_and_taken_back(
    mounts: Mounts, tree: Tree, monkeypatch: pytest.MonkeyPatch, first: list[str], wanted: list[str]
) -> None:
    tree.dir("/srv")
    pristine = left(tree)
    before, declared = [one(path) for path in first], [one(path, "2M") for path in wanted]
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
    run(mounts, one("/dev/old", "2M"))
    before = tree.content()
    mounts.fail = "mount -t hugetlbfs -o pagesize=2M"
    with pytest.raises(HostError, match="mount failed"):
        run(mounts, one(), one("/srv/b", "2M", mode="0777"), one("/dev/old", "2M"))
    mounts.fail = None
    assert tree.content() == before
    mounts.fail = "umount"
    with pytest.raises(HostError, match="target is busy") as caught:
        run(mounts, one())
    assert "fuser -vm /dev/old" in caught.value.remedy and tree.content() == before


def test_something_else_at_that_place_is_never_covered(mounts: Mounts, tree: Tree) -> None:
    tree.file("/srv/data/file")
    tree.file("/srv/file")
    tree.dir("/dev/hugepages")
    mounts.mount("/dev/hugepages", "pagesize=2M")
    assert refused(mounts, one("/srv/data")).message == (
        "The directory /srv/data is not empty, and a mount would hide what is in it."
    )
    assert "Something else is mounted" in refused(mounts, one("/dev/hugepages", "1G")).message
    assert "not a directory" in refused(mounts, one("/srv/file")).message


@pytest.mark.parametrize(("path", "real"), [("/var/run/huge", "/run/huge"), ("/srv/huge", "/dev/huge-1G")])
def test_a_path_through_a_symbolic_link_is_refused(mounts: Mounts, tree: Tree, path: str, real: str) -> None:
    """The kernel shows the mount by its real path, and systemd refuses such a unit."""
    tree.link("/var/run", "/run")
    tree.link("/srv/huge", "/dev/huge-1G")
    error = refused(mounts, one(path))
    assert error.message == "The mount point %s goes through a symbolic link." % path
    assert error.evidence == ["%s is really %s" % (path, real)] and real in error.remedy
    assert run(mounts, one(real))["changed"] and not run(mounts, one(real))["changed"]


def test_a_mount_of_somebody_else_that_is_as_declared_stays_his(mounts: Mounts, tree: Tree) -> None:
    tree.dir("/dev/hugepages")
    mounts.mount("/dev/hugepages", "pagesize=2M,mode=0770")
    assert "Something else is mounted" in refused(mounts, one("/dev/hugepages", "2M")).message


def test_a_mount_with_files_is_never_taken_away(mounts: Mounts, tree: Tree) -> None:
    run(mounts, one(), one("/srv/b", "2M"))
    tree.file("/srv/b/pages")
    error = refused(mounts, one())
    assert error.code == "mount_in_use" and error.evidence == ["/srv/b: pages"]
    assert refused(mounts, one(), one("/srv/b", "2M", mode="0700")).code == "mount_in_use"
    tree.remove("/srv/b/pages")
    tree.file("/srv/b/rtemap_0")
    assert run(mounts, one())["left_over"] == ["/srv/b/rtemap_0"]


def test_files_of_a_mount_that_stays_are_not_touched(
    mounts: Mounts, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mounts, one(), one("/srv/b", "2M"))
    tree.file("/dev/huge-1G/rtemap_0")
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: pytest.fail("a lock was taken"))
    assert run(mounts, one())["left_over"] == [] and tree.root.exists("/dev/huge-1G/rtemap_0")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (one("relative"), "cannot be a mount point"),
        (one("/a/../b"), "cannot be a mount point"),
        (one("/a b"), "cannot be a mount point"),
        (one(size="16M"), "no hugetlb pages of size 16M"),
        (one(mode="rwx"), "'rwx' is not a mode"),
        (one(mode="504"), "'504' is not a mode"),
        (one(mode="02770"), "'02770' is not a mode"),
        (one(uid=None, owner="nobody-here"), "There is no user nobody-here"),
        (one(gid=GID + 1, group="data"), "has another number than declared"),
        (one(limit="3M"), "not a whole number of pages"),
    ],
)
def test_a_wrong_declaration_is_explained(mounts: Mounts, wanted: dict[str, Any], message: str) -> None:
    assert message in refused(mounts, wanted).message


def test_a_mode_without_quotes_is_refused(mounts: Mounts) -> None:
    """YAML reads 0770 as the number 504, which would be octal, too."""
    error = refused(mounts, one(mode=str(0o770)))
    assert error.evidence == ["mode: 504, without a leading zero"] and '"0770"' in error.remedy


@pytest.mark.parametrize("mode", ["0700", "01770", "0070"])
def test_modes_are_returned_as_they_are_declared(mounts: Mounts, mode: str) -> None:
    assert run(mounts, one(mode=mode))["mounts"][0]["mode"] == mode
    assert not run(mounts, one(mode=mode))["changed"]


def test_without_a_group_it_is_roots_in_a_dry_run_too(mounts: Mounts) -> None:
    wanted = one(gid=None)
    assert run(mounts, wanted, check=True)["mounts"][0]["gid"] == 0


def test_a_group_that_an_earlier_task_makes_need_not_be_there_in_a_dry_run(mounts: Mounts) -> None:
    wanted = one(gid=None, group="to-come")
    predicted = run(mounts, wanted, check=True)
    assert predicted["changed"] and predicted["mounts"][0]["gid"] is None
    with pytest.raises(HostError, match="There is no group to-come"):
        run(mounts, wanted)
    assert mounts.ran == []


def test_a_group_that_nobody_makes_is_refused_in_a_dry_run_too(mounts: Mounts) -> None:
    assert refused(mounts, one(gid=None, group="nobody-here")).message == "There is no group nobody-here on this host."


@pytest.mark.parametrize("second", ["/srv/a", "/srv/a/b"])
def test_one_inside_the_other(mounts: Mounts, second: str) -> None:
    assert "one is inside the other" in refused(mounts, one("/srv/a"), one(second)).message


def test_a_damaged_record_is_refused(mounts: Mounts, tree: Tree) -> None:
    tree.file(RECORD, "[]")
    assert refused(mounts, one()).code == "record"


# --- mounts and pools in one run: all of it, or nothing ---


class MountsAndGrub(Mounts):
    """A host with pools, too small for pages of 1 GiB: they come with the next boot."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self.grub = FakeGrub(tree)
        for size in (2048, 1048576):
            for name in ("nr_hugepages", "surplus_hugepages", "free_hugepages"):
                tree.file("/sys/kernel/mm/hugepages/hugepages-%dkB/%s" % (size, name), "0")
        tree.file("/proc/meminfo", "MemTotal: 4194304 kB\nMemFree: 524288 kB")
        for folder in ("/srv", "/etc/default/grub.d", "/usr/local/lib/noiommu"):
            tree.dir(folder)

    def run(self, *argv: str) -> RunResult:
        done = super().run(*argv)
        if argv == ("update-grub",) and done.rc == 0:
            self.grub.do(argv)
        return done


class Pages(Root):
    """Gives what is asked for, or refuses."""

    stubborn = False

    def write_sysfs(self, path: str, value: str) -> None:
        if self.stubborn:
            raise HostError("kernel_write", "The kernel refused.")
        for name in ("nr_hugepages", "free_hugepages"):
            with open(self.path(os.path.dirname(path), name), "w", encoding="ascii") as stream:
                stream.write(value)


BOTH = {
    "pools": [{"size": "2M", "count": 4}, {"size": "1G", "count": 2}],
    "mounts": [one("/srv/a/b"), one("/srv/c", "2M")],
    "state": "present",
}
NEITHER = {"pools": None, "mounts": None, "state": "absent"}


@pytest.fixture
def pages(tree: Tree) -> Pages:
    return Pages(str(tree.base))


@pytest.fixture
def host(tree: Tree) -> MountsAndGrub:
    return MountsAndGrub(tree)


def both(host: Mounts, pages: Pages, declared: dict[str, Any]) -> dict[str, Any]:
    module = FakeModule({"persistent": True, "groups_to_come": [], "host_memory": None, **declared})
    return hugepages.hugepages(module, pages, host)


@pytest.mark.parametrize("wanted", [BOTH, NEITHER, {**BOTH, "pools": [], "mounts": [one("/srv/d/e")]}])
@pytest.mark.parametrize("fails", ["the kernel", "update-grub"])
def test_what_the_pools_cannot_do_takes_the_mounts_back(
    host: MountsAndGrub, pages: Pages, tree: Tree, wanted: dict[str, Any], fails: str
) -> None:
    if wanted is not BOTH:
        both(host, pages, BOTH)
    before = tree.content()
    host.ran.clear()
    pages.stubborn = fails == "the kernel"
    host.fail = fails
    with pytest.raises(HostError, match=r"refused|update-grub") as caught:
        both(host, pages, wanted)
    assert any(line.startswith(("mount", "umount")) for line in host.ran), "the mounts come first"
    assert tree.content() == before and "NOT put back" not in str(caught.value)
    assert "systemctl daemon-reload" not in host.ran, "systemd would not know the units that are back"
    pages.stubborn, host.fail = False, None
    assert both(host, pages, wanted)["changed"] and not both(host, pages, wanted)["changed"]


def test_pools_and_mounts_are_taken_back_wherever_that_was_killed(
    host: MountsAndGrub, pages: Pages, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    pristine = left(tree)
    killer = Killer(monkeypatch, (host, "run"), (pages, "write_sysfs"))
    for steps in killer.each(lambda: both(host, pages, BOTH), lambda: both(host, pages, NEITHER)):
        both(host, pages, NEITHER)
        assert not both(host, pages, NEITHER)["changed"]
        tree.dir("/usr/local/lib/noiommu")  # vfio_binding removes it if nothing is in it
        assert left(tree) == pristine, steps
