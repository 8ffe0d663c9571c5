# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts of hugetlbfs: where, of which page size, for whom; live, and by mount units at every boot.

Units of our own and no lines in /etc/fstab: that file is the operator's, and a mistake in it can stop a boot.
"""

from __future__ import annotations

import os
import re
from typing import Any, Callable, Container, NamedTuple

from .._base.command import Runner
from .._base.errors import HostError, Refused
from .._base.files import HEADER, FileSet, RenderedFile
from .._base.fs import Root
from .._base.paths import HUGETLB_MOUNTS_RECORD as RECORD
from .._base.paths import UNITS_DIR, WANTS_DIR
from .._base.records import dump_json, load_record
from .._host import systemd
from .._host.hugetlb import SIZES_DIR, Pools, format_size
from .leftovers import left_over, mounts_of, remove
from .plan import parse_size

_THE_RECORD = "the record"

_UNIT = """[Unit]
Description=Hugetlb pages of %(size)s for the data plane
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
ConditionPathExists=/sys/kernel/mm/hugepages/hugepages-%(kilobytes)dkB

[Mount]
What=hugetlbfs
Where=%(path)s
Type=hugetlbfs
Options=%(options)s

[Install]
WantedBy=multi-user.target
"""


class Wanted(NamedTuple):
    """A mount as declared."""

    path: str
    size: int  # of its pages
    mode: int
    uid: int
    gid: int | None  # None in a dry run: of a group that an earlier task makes
    limit: int | None  # of all its files together

    @property
    def options(self) -> str:
        """What mount(8) and a mount unit take."""
        gid = "?" if self.gid is None else "%d" % self.gid
        text = "pagesize=%s,mode=%04o,uid=%d,gid=%s" % (format_size(self.size), self.mode, self.uid, gid)
        return text + (",size=%d" % self.limit if self.limit is not None else "")

    @property
    def unit(self) -> str:
        """The name that systemd demands for a mount there."""
        return escape(self.path) + ".mount"

    def describe(self) -> dict[str, Any]:
        """Return what results show."""
        return {
            "path": self.path,
            "size": format_size(self.size),
            "mode": "0%03o" % self.mode,  # as it is declared
            "uid": self.uid,
            "gid": self.gid,
            "limit": self.limit,
        }


def escape(path: str) -> str:
    """Return a path as systemd writes it in a unit's name."""
    text = path.strip("/").replace("/", "\0")
    found = re.sub(r"[^A-Za-z0-9:_.\0]|^\.", lambda one: "".join("\\x%02x" % byte for byte in one[0].encode()), text)
    return found.replace("\0", "-")


def parse_mounts(root: Root, host: Pools, mounts: list[dict[str, Any]], groups_to_come: Container[str]) -> list[Wanted]:
    """Check the declared mounts against the host and each other; ``groups_to_come`` need not exist yet."""
    wanted = [_parse(root, host, one, groups_to_come) for one in mounts]
    paths = [one.path for one in wanted]
    for number, path in enumerate(paths):
        for other in paths[:number] + paths[number + 1 :]:
            if (other + "/").startswith(path + "/"):
                cause = "%s and %s are one inside the other, or the same." % (path, other)
                raise _bad(cause, paths, "Keep one of them.")
    return wanted


def _parse(root: Root, host: Pools, one: dict[str, Any], groups_to_come: Container[str]) -> Wanted:
    path, size = one["path"], parse_size(one["size"])
    if not re.match(r"^(/[A-Za-z0-9:_.@+-]+)+\Z", path) or {"..", "."} & set(path.split("/")):
        seen = ["expected an absolute path of letters, digits and :_.@+-, without . and .."]
        raise _bad("%r cannot be a mount point." % path, seen, "Choose another path.")
    real = root.realpath(path)
    if real != path:  # by which the kernel shows it, and systemd wants it
        cause = "The mount point %s goes through a symbolic link." % path
        raise _bad(cause, ["%s is really %s" % (path, real)], "Declare %s instead." % real)
    if size not in host.sizes:
        seen = ["%s has: %s" % (SIZES_DIR, ", ".join(map(format_size, host.sizes)) or "nothing")]
        cause = "This host has no hugetlb pages of size %s." % format_size(size)
        raise _bad(cause, seen, "Declare one of these sizes.")
    mode = str(one.get("mode") or "0770")
    # A leading zero tells it from the number that YAML makes of 0770 without quotes, whose digits may be octal as well.
    if not re.match(r"^0[01]?[0-7]{3}$", mode):
        seen = ["mode: %s%s" % (mode, "" if mode.startswith("0") else ", without a leading zero")]
        remedy = 'Write it in octal, with a leading zero and in quotes: "0770". The most is "01777".'
        raise _bad("%r is not a mode." % mode, seen, remedy)
    uid = _number(root, "user", one.get("uid"), one.get("owner"))
    gid: int | None = one.get("gid")
    # In a dry run of a whole play, the task that makes the group has not made it.
    if one.get("group") not in groups_to_come or _find(root, "group", one["group"]) is not None:
        gid = _number(root, "group", gid, one.get("group"))
    limit = None if one.get("limit") is None else parse_size(one["limit"])
    if limit is not None and limit % size:
        seen = ["limit %d, page size %d" % (limit, size)]
        cause = "The limit of %s is not a whole number of pages." % path
        raise _bad(cause, seen, "Make it a multiple of the page size.")
    return Wanted(path, size, int(mode, 8), uid, gid, limit)


_ACCOUNTS = {"user": "/etc/passwd", "group": "/etc/group"}


def _find(root: Root, kind: str, name: str | None) -> int | None:
    lines = (line.split(":") for line in (root.read_text(_ACCOUNTS[kind]) or "").splitlines())
    return next((int(fields[2]) for fields in lines if len(fields) > 2 and fields[0] == name), None)


def _number(root: Root, kind: str, number: int | None, name: str | None) -> int:
    if name is None:
        return number or 0
    path, found = _ACCOUNTS[kind], _find(root, kind, name)
    if found is None:
        raise _bad(
            "There is no %s %s on this host." % (kind, name),
            ["%s: no line for %s" % (path, name)],
            "Create it first, or declare its number instead.",
        )
    if number is not None and number != found:
        seen = ["%s: %s is %d, declared is %d" % (path, name, found, number)]
        raise _bad("The %s %s has another number than declared." % (kind, name), seen, "Leave one of the two out.")
    return found


def _bad(message: str, evidence: list[str], remedy: str) -> HostError:
    return HostError("mount", message, evidence=evidence, remedy=remedy)


class MountPlan:
    """What one run shall do about mounts. The constructor decides everything and touches nothing.

    The list is the whole state: a mount of ours that is not declared any more is taken away.
    """

    def __init__(
        self, root: Root, runner: Runner, mounts: list[dict[str, Any]], groups_to_come: Container[str]
    ) -> None:
        self._root, self._runner = root, runner
        self.wanted = parse_mounts(root, Pools(root), mounts, groups_to_come)
        self._record = _read_record(root)
        self._mounted = {one.path: one for one in mounts_of(root)}
        paths = {one.path: one for one in self.wanted}
        self.to_mount = [one for one in self.wanted if not self._is_as_wanted(one)]
        self.to_unmount = [
            path
            for path in self._record
            if path in self._mounted and (path not in paths or paths[path] in self.to_mount)
        ]
        self._dropped = [path for path in self._record if path not in paths]
        self._made = {one.path: self._record.get(one.path, _missing(root, one.path)) for one in self.wanted}
        self.files = FileSet(root, self._files())
        self._record_file = FileSet(root, [RenderedFile(RECORD, _render(self._made) if self._made else None)])
        self.left_over = left_over(root, [self._mounted[path] for path in self.to_unmount])
        self._refuse()

    def _is_as_wanted(self, one: Wanted) -> bool:
        now = self._mounted.get(one.path)
        if now is None or now.fstype != "hugetlbfs" or now.page_size != one.size or now.limit != one.limit:
            return False
        about = os.stat(self._root.path(one.path))
        return (about.st_mode & 0o7777, about.st_uid, about.st_gid) == (one.mode, one.uid, one.gid)

    def _files(self) -> list[RenderedFile]:
        files = []
        for one in self.wanted:
            text = HEADER + _UNIT % {
                "path": one.path,
                "size": format_size(one.size),
                "kilobytes": one.size >> 10,
                "options": one.options,
            }
            unit = "%s/%s" % (UNITS_DIR, one.unit)
            files += [RenderedFile(unit, text), RenderedFile("%s/%s" % (WANTS_DIR, one.unit), unit, link=True)]
        for path in self._dropped:
            name = escape(path) + ".mount"
            files += [
                RenderedFile("%s/%s" % (WANTS_DIR, name), None, link=True),
                RenderedFile("%s/%s" % (UNITS_DIR, name), None),
            ]
        return files

    def _refuse(self) -> None:
        refusals = []
        for one in self.wanted:
            now = self._mounted.get(one.path)
            content = self._root.listdir(one.path)
            if now is not None and one.path not in self._record:
                refusals.append(
                    HostError(
                        "mount",
                        "Something else is mounted at %s." % one.path,
                        evidence=["/proc/1/mountinfo: %s is %s" % (one.path, now.fstype)],
                        remedy="Choose another path, or unmount it and take it out of /etc/fstab or its unit.",
                    )
                )
            elif now is None and content:
                refusals.append(
                    HostError(
                        "mount",
                        "The directory %s is not empty, and a mount would hide what is in it." % one.path,
                        evidence=["%s: %s" % (one.path, ", ".join(content[:5]))],
                        remedy="Choose another path, or move what is there.",
                    )
                )
            elif now is None and self._root.exists(one.path) and not os.path.isdir(self._root.path(one.path)):
                cause = "%s is not a directory." % one.path
                refusals.append(_bad(cause, ["%s: a file" % one.path], "Choose another path."))
        removable = {one.path for one in self.left_over}
        for path in self.to_unmount:
            files = [name for name in self._root.listdir(path) if os.path.join(path, name) not in removable]
            if files:
                refusals.append(
                    HostError(
                        "mount_in_use",
                        "The hugetlbfs mount %s has to be unmounted, but it holds files, and their pages." % path,
                        evidence=["%s: %s" % (path, ", ".join(files[:5]))],
                        remedy="Stop the application that uses them and remove them, then run again.",
                    )
                )
        if refusals:
            raise Refused(refusals)

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        changed = self.files.changed or self._record_file.changed
        return bool(self.to_mount or self.to_unmount or self._dropped) or changed

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        after = {one.path: "hugetlbfs %s\n" % one.options for one in self.to_mount}
        mounts = [
            {
                "before_header": path,
                "after_header": path,
                "before": "%s %s\n" % (now.fstype, now.options) if now else "not mounted\n",
                "after": after.get(path, "not mounted\n"),
            }
            for path in dict.fromkeys([*self.to_unmount, *after])
            for now in [self._mounted.get(path)]
        ]
        return mounts + self._record_file.diff() + self.files.diff()

    def apply(self) -> None:
        """Do what :meth:`rollback` can undo, or leave the host as it was and raise."""
        # Recorded before it is made, forgotten after it is gone: a killed run can be finished, and taken back.
        recorded = FileSet(self._root, [RenderedFile(RECORD, _render({**self._record, **self._made}))])
        self._undo: list[tuple[str, Callable[[], Any]]] = [(_THE_RECORD, recorded.rollback)]
        try:
            if self._record or self._made:
                recorded.apply()
            remove(self._root, self.left_over)
            for path in self.to_unmount:
                now = self._mounted[path]
                self._run("umount", path)
                self._undo.append(("the mount " + path, lambda now=now: self._mount(now.path, now.options)))
            for one in self.to_mount:
                self._make_directories(one.path)
                self._mount(one.path, one.options)
                self._undo.append(("the mount " + one.path, lambda path=one.path: self._run("umount", path)))
            self.files.apply()
        except HostError as exc:
            exc.evidence += self.rollback()
            raise

    def finish(self) -> None:
        """Do what cannot be undone, when nothing can fail any more that would have to undo the rest."""
        # systemd knows each mount already, from the kernel, and would not look for its unit by itself.
        if self.files.changed and systemd.is_running(self._root):
            systemd.reload(self._runner)
        for path in self._dropped:
            for folder in reversed(self._record[path]):
                self._root.remove_empty_dir(folder)
        self._record_file.apply()
        if not self._made:
            self._root.remove_empty_dir(os.path.dirname(RECORD))

    def rollback(self) -> list[str]:
        """Put back what :meth:`apply` did; return what could not be."""
        failed = self.files.rollback()
        while self._undo:
            what, undo = self._undo.pop()
            if failed and what == _THE_RECORD:
                continue  # by which the next run knows what is left
            try:
                failed += undo() or []
            except HostError as exc:
                failed.append("not put back: %s: %s" % (what, exc.message))
        return failed

    def _make_directories(self, path: str) -> None:
        for folder in _missing(self._root, path):
            try:
                self._root.make_dirs(folder)
            except OSError as exc:
                raise HostError(
                    "mount",
                    "The mount point %s could not be made: %s." % (path, exc.strerror),
                    evidence=["mkdir %s: %s" % (folder, exc.strerror)],
                    remedy="Choose a path on a writable filesystem.",
                ) from exc
            self._undo.append((folder, lambda folder=folder: self._root.remove_empty_dir(folder) and None))

    def _mount(self, path: str, options: str) -> None:
        self._run("mount", "-t", "hugetlbfs", "-o", options, "hugetlbfs", path)

    def _run(self, *argv: str) -> None:
        done = self._runner.run(*argv)
        if done.rc != 0:
            said = (done.stderr.strip() or "no reason given").splitlines()[-1]
            busy = "Stop the processes that use it (fuser -vm %s), then run again." % argv[-1]
            raise HostError(
                "mount",
                "%s failed: %s" % (argv[0], said),
                evidence=["`%s`: rc %d" % (" ".join(argv), done.rc)],
                remedy=busy if argv[0] == "umount" else "Look at the last lines of `dmesg` for the kernel's reason.",
            )

    def report(self) -> list[dict[str, Any]]:
        """Return the declared mounts."""
        return [one.describe() for one in self.wanted]


def _missing(root: Root, path: str) -> list[str]:
    parts = path.strip("/").split("/")
    folders = ["/" + "/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return [folder for folder in folders if not root.exists(folder)]


def _render(made: dict[str, list[str]]) -> str:
    return dump_json({"mounts": made})


def _read_record(root: Root) -> dict[str, list[str]]:
    damage = "The record of the hugetlbfs mounts is damaged."
    remedy = "Unmount what is no longer wanted yourself, then remove %s." % RECORD
    return load_record(root, RECORD, _parse_record, damage, remedy) or {}


def _parse_record(stored: dict[str, Any]) -> dict[str, list[str]]:
    return {str(path): [str(one) for one in made] for path, made in stored["mounts"].items()}
