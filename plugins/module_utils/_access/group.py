# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The group that may use the devices, and its members."""

from __future__ import annotations

import grp
import pwd
from functools import partial
from typing import Any, Iterator

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._base.undo import UndoStack
from .._host.accounts import Account, read_groups, user_ids
from .declared import GROUP_NAME, Request, group_misnamed, group_missing
from .record import Record


class GroupPlan:
    """Which group is created or removed, and who joins or leaves it."""

    def __init__(self, root: Root, runner: Runner, request: Request, record: Record | None) -> None:
        self._root = root
        self._runner = runner
        self._request = request
        self._record = record
        self._groups = read_groups(root)
        self.name = request.group
        self.users = list(dict.fromkeys(request.users))
        self.warnings: list[str] = []
        account = self._groups.get(self.name or "")
        self.gid = account.gid if account else request.gid
        self.is_created = self.name is not None and account is None
        members = account.members if account else []
        self._joining = [user for user in self.users if user not in members] if self.name is not None else []
        self._old = self._groups.get(record.group) if record else None
        self.old_gid = self._old.gid if self._old else None
        self._leaving = self._find_leaving()
        self._is_removed = self._may_remove()

    def refusals(self) -> list[HostError]:
        """Return every reason why the group cannot be as declared."""
        if self.name is None:
            request = self._request
            is_empty = not (request.users or request.services or request.binaries or request.gid)
            return [] if is_empty else [group_missing()]
        return [*self._name_refusals(self.name), *self._user_refusals()]

    def _name_refusals(self, name: str) -> Iterator[HostError]:
        if not GROUP_NAME.match(name):
            yield group_misnamed(name)
            return
        account, gid = self._groups.get(name), self._request.gid
        if account is not None:
            if gid is not None and account.gid != gid:
                yield HostError(
                    "group",
                    "The group %s has a different number than declared." % name,
                    evidence=["/etc/group: %s has gid %d, declared is %d" % (name, account.gid, gid)],
                    remedy="Leave gid out, or declare %d: files that belong to the group would lose it." % account.gid,
                )
            return
        for other in (group for group in self._groups.values() if group.gid == gid):
            yield HostError(
                "group",
                "The group number %d is taken." % other.gid,
                evidence=["/etc/group: gid %d is %s" % (other.gid, other.name)],
                remedy="Leave gid out, or declare a free one.",
            )
            return
        known = directory_group(self._root, name, gid)
        if known:
            yield HostError(
                "group",
                "The group %s cannot be created: a directory service has its name or number." % name,
                evidence=["/etc/group: no line for %s" % name, "name service switch: %s" % known],
                remedy="Choose another name or number. udev gives devices to groups of /etc/group only.",
            )

    def _user_refusals(self) -> Iterator[HostError]:
        unknown = sorted(set(self.users).difference(user_ids(self._root)))
        if unknown:
            yield HostError(
                "user",
                "There is no user %s on this host." % ", ".join(unknown),
                evidence=["/etc/passwd: no line for %s" % user for user in unknown],
                remedy="Create the users first, or remove them from the list. Users of a directory service have to be"
                " added to the group there.",
            )

    def _find_leaving(self) -> list[str]:
        if self._record is None or self._old is None:
            return []
        keep = self.users if self._record.group == self.name else []
        return [user for user in self._record.users_added if user in self._old.members and user not in keep]

    def _may_remove(self) -> bool:
        """Whether our earlier group is removed. A primary group cannot be; everything else is still revoked."""
        if self._record is None or self._old is None or not self._record.group_made or self._old.name == self.name:
            return False
        users = [user for user, gid in primary_groups(self._root) if gid == self._old.gid]
        if users:
            self.warnings.append(
                "The group %s stays: it is the primary group of %s. Once it is not (usermod -g), remove it by"
                " `groupdel %s`." % (self._old.name, ", ".join(users), self._old.name)
            )
        return not users

    # --- what changes ---

    @property
    def changed(self) -> bool:
        """Whether the group or its members differ."""
        return bool(self.is_created or self._is_removed or self._leaving or self._joining)

    def users_added(self) -> list[str]:
        """Return the members of the group who are ours to remove again."""
        record = self._record
        ours = record.users_added if record is not None and record.group == self.name else []
        return sorted({user for user in ours if user in self.users} | set(self._joining))

    def is_ours(self) -> bool:
        """Whether this collection created the group, or is about to."""
        record = self._record
        return self.is_created or bool(record is not None and record.group == self.name and record.group_made)

    @property
    def was_ours(self) -> bool:
        """Whether this collection created the group that an earlier run gave access to."""
        return self._old is not None and self._record is not None and self._record.group_made

    def before(self) -> dict[str, Any]:
        """Return the groups concerned as they were found."""
        return {name: _show(self._groups[name].gid, self._groups[name].members) for name in self._shown()}

    def after(self) -> dict[str, Any]:
        """Return the same groups as they become."""
        groups = {}
        for name in self._shown():
            account = self._groups[name]
            members = set(account.members)
            if self._old is not None and name == self._old.name:
                members -= set(self._leaving)
            if name == self.name:
                members |= set(self._joining)
            elif self._is_removed:
                continue
            groups[name] = _show(account.gid, members)
        if self.name is not None and self.is_created:
            groups[self.name] = _show(self.gid, self._joining)
        return groups

    def _shown(self) -> list[str]:
        names = {self.name, self._record.group if self._record else None}
        return sorted(name for name in names if name is not None and name in self._groups)

    # --- changing the host ---

    def join(self, undo: UndoStack) -> None:
        """Create the group where it is missing, and add the users."""
        if self.name is None:
            return
        group = self.name
        if self.is_created:
            number = [] if self._request.gid is None else ["--gid", str(self._request.gid)]
            self._run("groupadd", "--system", *number, group)
            undo.push("the group " + group, partial(self._run, "groupdel", group))
        for user in self._joining:
            self._add(group, user)
            undo.push("membership of " + user, partial(self._run, "gpasswd", "--delete", user, group))
        if self.is_created:
            self.gid = read_groups(self._root)[group].gid

    def leave(self, undo: UndoStack) -> None:
        """Remove the earlier group if it is ours, else the members whom we added and who are no longer listed."""
        old = self._old
        if old is None:
            return
        if self._is_removed:
            self._run("groupdel", old.name)
            undo.push("the group " + old.name, partial(self._recreate, old))
            return
        for user in self._leaving:
            self._run("gpasswd", "--delete", user, old.name)
            undo.push("membership of " + user, partial(self._add, old.name, user))

    def _recreate(self, account: Account) -> None:
        self._run("groupadd", "--system", "--gid", str(account.gid), account.name)
        for user in account.members:
            self._add(account.name, user)

    def _add(self, group: str, user: str) -> None:
        self._run("usermod", "--append", "--groups", group, user)

    def _run(self, *argv: str) -> None:
        done = self._runner.run(*argv)
        if done.rc != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise HostError(
                "command",
                "%s failed: %s" % (argv[0], said[-1] if said else "no reason given"),
                evidence=["`%s`: rc %d" % (" ".join(argv), done.rc)],
                remedy="Install it (Debian: apt-get install passwd)."
                if done.rc == 127
                else "Fix the error above and run again; a stale /etc/group.lock or a read-only /etc is common.",
            )


def _show(gid: int | None, members: Any) -> dict[str, Any]:
    return {"gid": gid, "members": sorted(members)}


def primary_groups(root: Root) -> list[tuple[str, int]]:
    """Return users and the numbers of their primary groups, including directory services that list their users."""
    lines = (line.split(":") for line in (root.read_text("/etc/passwd") or "").splitlines())
    found = [(fields[0], int(fields[3])) for fields in lines if len(fields) > 3 and fields[3].isdigit()]
    found += [(user.pw_name, user.pw_gid) for user in (pwd.getpwall() if root.is_live else ())]
    return list(dict.fromkeys(found))


def directory_group(root: Root, name: str, gid: int | None) -> str | None:
    """Return what a directory service has under a group's name or number, without /etc/group."""
    try:
        found = grp.getgrnam(name) if root.is_live else None
    except KeyError:
        found = None
    try:
        found = found or (grp.getgrgid(gid) if root.is_live and gid is not None else None)
    except KeyError:
        pass
    return "%s, gid %d" % (found.gr_name, found.gr_gid) if found else None
