# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may use the data plane's devices: one group, its members, its device nodes and its locked memory."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any, NamedTuple

from ._errors import HostError
from ._files import FileSet, RenderedFile
from ._fs import Root, Runner
from ._store import dump_json

UDEV_RULES = "/etc/udev/rules.d/60-noiommu-vfio.rules"
LIMITS = "/etc/security/limits.d/60-noiommu.conf"
RECORD = "/var/lib/noiommu/access.json"
VFIO_DIR = "/dev/vfio"

GRANTED_MODE = 0o660
KERNEL_MODE = 0o600

# Groups of hardware and noiommu backends are plain numbers. /dev/vfio/vfio gives nothing by itself and is 0666 already.
_GROUP_NODE = re.compile(r"^(noiommu-)?\d+$")
# The number of a group that is not made yet: groupadd chooses it.
_UNKNOWN = -1
_HEADER = "# Written by the Ansible module baremetal.noiommu.dataplane_access; your changes would be lost.\n"


class Account(NamedTuple):
    """One line of /etc/group."""

    name: str
    gid: int
    members: list[str]


class Record(NamedTuple):
    """What we made, and so may unmake."""

    group: str
    group_made: bool
    users_added: list[str]


class Node(NamedTuple):
    """A device node and who may use it."""

    path: str
    uid: int
    gid: int
    mode: int


def read_groups(root: Root) -> dict[str, Account]:
    """Return the host's local groups by name."""
    groups = {}
    for line in (root.read_text("/etc/group") or "").splitlines():
        fields = line.split(":")
        if len(fields) == 4 and fields[2].isdigit():
            groups[fields[0]] = Account(fields[0], int(fields[2]), [name for name in fields[3].split(",") if name])
    return groups


def _user_names(root: Root) -> set[str]:
    return {line.split(":")[0] for line in (root.read_text("/etc/passwd") or "").splitlines() if ":" in line}


def read_nodes(root: Root) -> list[Node]:
    """Return the VFIO group nodes that exist now."""
    nodes = []
    for name in root.listdir(VFIO_DIR):
        if _GROUP_NODE.match(name):
            path = "%s/%s" % (VFIO_DIR, name)
            found = os.stat(root.path(path))
            nodes.append(Node(path, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)))
    return nodes


def read_record(root: Root) -> Record | None:
    """Return what earlier runs made, if any."""
    text = root.read_text(RECORD)
    if text is None:
        return None
    try:
        stored = json.loads(text)
        return Record(str(stored["group"]), bool(stored["group_made"]), [str(one) for one in stored["users_added"]])
    except (ValueError, KeyError, TypeError) as exc:
        raise HostError(
            "record",
            "The record of what was granted is damaged.",
            evidence=["%s: %s" % (RECORD, exc)],
            remedy="Remove %s; the group and memberships made earlier are then left to you." % RECORD,
        ) from exc


def udev_rules(group: str) -> str:
    """Return the rule that gives VFIO group nodes to a group."""
    return _HEADER + (
        'SUBSYSTEM=="vfio", KERNEL=="[0-9]*|noiommu-[0-9]*", GROUP="%s", MODE="%04o"\n' % (group, GRANTED_MODE)
    )


def limits(group: str, memlock: str) -> str:
    """Return the limit on locked memory: VFIO pins what a device may reach, and counts it."""
    value = memlock if memlock == "unlimited" else str(max(1, int(memlock) // 1024))
    return _HEADER + "".join("@%s %s memlock %s\n" % (group, kind, value) for kind in ("soft", "hard"))


def parse_memlock(text: Any) -> str:
    """Return ``unlimited`` or a number of bytes."""
    value = str(text).strip()
    if value in ("unlimited", "-1"):
        return "unlimited"
    if not value.isdigit() or int(value) < 1024:
        raise HostError(
            "memlock",
            "%r is not an amount of locked memory." % (text,),
            evidence=["expected `unlimited` or a number of bytes, at least 1024"],
            remedy="Use unlimited, or the bytes of hugetlb memory that the application maps.",
        )
    return value


class Plan:
    """What one run shall do. Made from the host alone, so that check mode and the real run agree."""

    def __init__(
        self, root: Root, runner: Runner, group: str | None, gid: int | None, users: list[str], memlock: str | None
    ) -> None:
        self._root = root
        self._runner = runner
        self.warnings: list[str] = []
        self.record = read_record(root)
        self.groups = read_groups(root)
        self.group = group
        self._gid = gid
        self._users = list(dict.fromkeys(users))
        if group is not None:
            self._check(group)
        old = self.record
        self._leaving = self._memberships_to_drop(old)
        self._joining = self._memberships_to_add()
        self._make_group = group is not None and group not in self.groups
        self._drop_group = bool(old and old.group_made and old.group != group and old.group in self.groups)
        self.files = FileSet(root, self._files(memlock))
        self.nodes = read_nodes(root)
        self._refuse_primary()
        self.before = self._state_before()

    # --- planning ---

    def _check(self, group: str) -> None:
        if not re.match(r"^[a-z_][a-z0-9_-]{0,31}$", group):
            raise HostError(
                "group",
                "%r is not a group name." % group,
                evidence=["expected lower-case letters, digits, - and _, at most 32, not starting with a digit"],
                remedy="Choose another name.",
            )
        account = self.groups.get(group)
        if account is not None and self._gid is not None and account.gid != self._gid:
            raise HostError(
                "group",
                "The group %s has another number than declared." % group,
                evidence=["/etc/group: %s has gid %d, declared is %d" % (group, account.gid, self._gid)],
                remedy="Leave gid out, or declare %d: files that belong to the group would lose it." % account.gid,
            )
        taken = [one.name for one in self.groups.values() if one.gid == self._gid]
        if account is None and taken:
            raise HostError(
                "group",
                "The group number %d is taken." % self._gid,
                evidence=["/etc/group: gid %d is %s" % (self._gid, taken[0])],
                remedy="Leave gid out, or declare a free one.",
            )
        unknown = sorted(set(self._users) - _user_names(self._root))
        if unknown:
            raise HostError(
                "user",
                "There is no user %s on this host." % ", ".join(unknown),
                evidence=["/etc/passwd: no line for %s" % name for name in unknown],
                remedy="Create the users first, or take them off the list. Users of a directory service have to be"
                " added to the group there.",
            )

    def _memberships_to_drop(self, old: Record | None) -> list[str]:
        if old is None or old.group not in self.groups:
            return []
        members = self.groups[old.group].members
        keep = self._users if old.group == self.group else []
        return [name for name in old.users_added if name in members and name not in keep]

    def _memberships_to_add(self) -> list[str]:
        if self.group is None:
            return []
        account = self.groups.get(self.group)
        members = account.members if account else []
        return [name for name in self._users if name not in members]

    def _refuse_primary(self) -> None:
        if not self._drop_group or self.record is None:
            return
        gid = str(self.groups[self.record.group].gid)
        lines = (self._root.read_text("/etc/passwd") or "").splitlines()
        users = [fields[0] for fields in (line.split(":") for line in lines) if len(fields) > 3 and fields[3] == gid]
        if users:
            raise HostError(
                "group",
                "The group %s cannot be removed: it is a user's primary group." % self.record.group,
                evidence=["/etc/passwd: %s has gid %s" % (name, gid) for name in users],
                remedy="Give these users another primary group (usermod -g), then run again.",
            )

    def _new_record(self) -> Record | None:
        if self.group is None:
            return None
        same = self.record if self.record is not None and self.record.group == self.group else None
        earlier = [name for name in (same.users_added if same else []) if name in self._users]
        added = earlier + [name for name in self._joining if name not in earlier]
        return Record(self.group, bool(same and same.group_made) or self._make_group, sorted(added))

    def _files(self, memlock: str | None) -> list[RenderedFile]:
        new = self._new_record()
        return [
            RenderedFile(RECORD, dump_json(new._asdict()) if new else None),
            RenderedFile(UDEV_RULES, udev_rules(self.group) if self.group else None),
            RenderedFile(LIMITS, limits(self.group, memlock) if self.group and memlock else None),
        ]

    # --- what it comes to ---

    def _wanted_nodes(self) -> list[Node]:
        """Return the existing nodes as the rule makes them.

        Without a group only nodes that a group of ours was given are taken back: others are none of our business.
        """
        if self.group is not None:
            account = self.groups.get(self.group)
            gid = account.gid if account else self._gid
            return [Node(node.path, 0, _UNKNOWN if gid is None else gid, GRANTED_MODE) for node in self.nodes]
        account = self.groups.get(self.record.group) if self.record else None
        if account is None:
            return self.nodes
        return [
            Node(node.path, 0, 0, KERNEL_MODE) if node.gid == account.gid else node for node in self.nodes
        ]

    def _node_changes(self) -> list[tuple[Node, Node]]:
        return [(had, want) for had, want in zip(self.nodes, self._wanted_nodes()) if had != want]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(
            self._make_group
            or self._drop_group
            or self._leaving
            or self._joining
            or self.files.changed
            or self._node_changes()
        )

    def _names(self) -> list[str]:
        return sorted({name for name in (self.group, self.record.group if self.record else None) if name})

    def _state_before(self) -> dict[str, Any]:
        accounts = [self.groups[name] for name in self._names() if name in self.groups]
        return {
            "groups": {one.name: {"gid": one.gid, "members": sorted(one.members)} for one in accounts},
            "nodes": _show_nodes(self.nodes),
        }

    @property
    def after(self) -> dict[str, Any]:
        """Return groups and nodes as they become."""
        groups = {}
        for name in self._names():
            account = self.groups.get(name)
            if name != self.group and (account is None or self._drop_group):
                continue
            members = set(account.members) if account else set()
            if self.record is not None and name == self.record.group:
                members = members.difference(self._leaving)
            if name == self.group:
                members = members.union(self._joining)
            groups[name] = {"gid": account.gid if account else self._gid, "members": sorted(members)}
        return {"groups": groups, "nodes": _show_nodes(self._wanted_nodes())}

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        after = self.after
        parts = [
            {
                "before_header": header,
                "after_header": header,
                "before": _lines(self.before[key]),
                "after": _lines(after[key]),
            }
            for header, key in (("/etc/group", "groups"), (VFIO_DIR, "nodes"))
            if self.before[key] != after[key]
        ]
        return parts + self.files.diff()

    # --- doing it ---

    def apply(self) -> None:
        """Do it. What is made is recorded before it is made, so that a killed run can be taken back."""
        if self.group is None:
            self._set_nodes()
            self._leave()
            self.files.apply()
            self._reload_rules()
            self._root.remove_empty_dir(os.path.dirname(RECORD))
            return
        self._leave()
        self.files.apply()
        self._join(self.group)
        # Only now: udev looks a rule's group up when it reads the rule, and ignores one that is not there yet.
        self._reload_rules()
        self.groups = read_groups(self._root)
        self._set_nodes()

    def _leave(self) -> None:
        if self.record is None:
            return
        if self._drop_group:
            self._run("groupdel", self.record.group)
            return
        for name in self._leaving:
            self._run("gpasswd", "--delete", name, self.record.group)

    def _join(self, group: str) -> None:
        joined: list[str] = []
        try:
            if self._make_group:
                number = [] if self._gid is None else ["--gid", str(self._gid)]
                self._run("groupadd", "--system", *number, group)
            for name in self._joining:
                self._run("usermod", "--append", "--groups", group, name)
                joined.append(name)
        except HostError as exc:
            for name in joined:
                self._runner.run("gpasswd", "--delete", name, group)
            if self._make_group:
                self._runner.run("groupdel", group)
            exc.evidence += self.files.rollback()
            raise

    def _reload_rules(self) -> None:
        if UDEV_RULES in self.files.changed_paths:
            done = self._runner.run("udevadm", "control", "--reload")
            if done.rc != 0:
                # udevd looks at its rule directories by itself before the next event.
                self.warnings.append("udev did not reload its rules: %s" % (done.stderr.strip() or "rc %d" % done.rc))

    def _set_nodes(self) -> None:
        for _had, want in self._node_changes():
            try:
                os.chown(self._root.path(want.path), want.uid, want.gid)
                os.chmod(self._root.path(want.path), want.mode)
            except FileNotFoundError:
                continue  # The device went away; udev gives the next one to the group.
            except OSError as exc:
                raise HostError(
                    "file",
                    "Could not give %s to its group: %s." % (want.path, exc.strerror),
                    evidence=["%s -> gid %d, mode %04o" % (want.path, want.gid, want.mode)],
                    remedy="Run with become: true.",
                ) from exc

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
                else "Look at the reason above; a stale /etc/group.lock or a read-only /etc are usual ones.",
            )


def _show_nodes(nodes: list[Node]) -> dict[str, dict[str, Any]]:
    return {
        node.path: {"uid": node.uid, "gid": None if node.gid == _UNKNOWN else node.gid, "mode": "%04o" % node.mode}
        for node in nodes
    }


def _lines(entries: dict[str, dict[str, Any]]) -> str:
    return "".join(
        "%s: %s\n" % (name, ", ".join("%s=%s" % (key, value) for key, value in entry.items()))
        for name, entry in entries.items()
    )
