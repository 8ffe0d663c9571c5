# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may use the data plane's devices: a group, its members, services and programs, each with what it needs."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from typing import Any, Callable, NamedTuple

from .._base.command import Runner, RunResult
from .._base.errors import HostError, Refused
from .._base.files import FileSet, RenderedFile
from .._base.fs import Root
from .._base.paths import (
    ACCESS_RECORD,
    DROP_IN,
    GRANTED_MODE,
    HUGETLBFS_UNIT,
    LIMITS,
    UDEV_RULES,
    UNITS_DIR,
    drop_in_path,
)
from .._base.records import dump_json, load_record
from .._host import capabilities, systemd
from .._host.accounts import Account, read_groups
from .._host.iommu import VFIO_DIR, chardevs
from .._host.mounts import read_mounts
from .._host.units import Unit, full_name, read_unit
from .._policy import backend as _backend
from . import file_capabilities, profiles
from . import services as _units

PIN_NODE = "/dev/noiommu"

KERNEL_MODE = 0o600

# The number of a group that is not made yet: groupadd chooses it.
_UNKNOWN = -1
_HEADER = "# Written by the Ansible module baremetal.noiommu.dataplane_access; your changes would be lost.\n"


class Node(NamedTuple):
    """A device node, or the root of a mount, and who may use it."""

    path: str
    uid: int
    gid: int
    mode: int


class Record(NamedTuple):
    """What we made, and so may unmake."""

    group: str
    group_made: bool
    users_added: list[str]
    binaries: dict[str, file_capabilities.Recorded]
    hugetlbfs: Node | None  # as it was before
    services: list[str] = []  # with a drop-in of ours


class Application(NamedTuple):
    """A service or a program, by its name, and the capabilities that its application needs."""

    name: str
    profile: str
    grants: list[profiles.Grant]


class Request(NamedTuple):
    """What is declared. Without a group, everything is taken back."""

    group: str | None = None
    gid: int | None = None
    users: list[str] = []
    memlock: str = "unlimited"
    hugetlbfs: bool = True
    services: list[dict[str, Any]] = []
    binaries: list[dict[str, Any]] = []
    profile: str = "dpdk"
    capabilities: list[str] = []
    backend: str = "auto"
    accept_unsafe: bool = False


def _user_names(root: Root) -> set[str]:
    return {line.split(":")[0] for line in (root.read_text("/etc/passwd") or "").splitlines() if ":" in line}


def _primary_groups(root: Root) -> list[tuple[str, int]]:
    """Return users and the numbers of their primary groups, those of directory services that tell included."""
    lines = (line.split(":") for line in (root.read_text("/etc/passwd") or "").splitlines())
    found = [(fields[0], int(fields[3])) for fields in lines if len(fields) > 3 and fields[3].isdigit()]
    found += [(one.pw_name, one.pw_gid) for one in (pwd.getpwall() if root.is_live else ())]
    return list(dict.fromkeys(found))


def _directory_group(root: Root, name: str, gid: int | None) -> str | None:
    """Say what a directory service has by a group's name or number; /etc/group is not asked."""
    try:
        found = grp.getgrnam(name) if root.is_live else None
    except KeyError:
        found = None
    try:
        found = found or (grp.getgrgid(gid) if root.is_live and gid is not None else None)
    except KeyError:
        pass
    return "%s, gid %d" % (found.gr_name, found.gr_gid) if found else None


def _node(root: Root, path: str) -> Node:
    found = os.stat(root.path(path))
    return Node(path, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def read_nodes(root: Root) -> list[Node]:
    """Return the device nodes of the data plane that exist now."""
    return [_node(root, path) for path in [PIN_NODE, *chardevs(root)] if root.exists(path)]


def _read_record(root: Root) -> Record | None:
    """Return what earlier runs made, if any."""
    damage = "The record of what was granted is damaged."
    remedy = (
        "Remove %s; the group, memberships and file capabilities (getcap -r /usr) given earlier are then left to you."
        % ACCESS_RECORD
    )
    return load_record(root, ACCESS_RECORD, _parse_record, damage, remedy)


def _parse_record(stored: dict[str, Any]) -> Record:
    binaries = {
        path: file_capabilities.Recorded(
            one["inode"], file_capabilities.State(*one["before"]), one["mode"], one["capabilities"]
        )
        for path, one in stored.get("binaries", {}).items()
    }
    mount = stored.get("hugetlbfs")
    return Record(
        str(stored["group"]),
        bool(stored["group_made"]),
        [str(one) for one in stored["users_added"]],
        binaries,
        Node(*mount) if mount else None,
        [str(one) for one in stored.get("services", [])],
    )


def _render_record(record: Record) -> str:
    stored = record._asdict()
    stored["binaries"] = {path: one._asdict() for path, one in sorted(record.binaries.items())}
    return dump_json(stored)


def udev_rules(group: str) -> str:
    """Return the rules that give the device nodes to a group."""
    # Final assignments: 91-vfio.rules of Open vSwitch's RPM, read later, gives the same nodes to hugetlbfs.
    rule = 'SUBSYSTEM=="%s", KERNEL=="%s", GROUP:="%s", MODE:="%04o"\n'
    return (
        _HEADER
        + rule % ("vfio", "[0-9]*|noiommu-[0-9]*", group, GRANTED_MODE)
        + rule % ("misc", os.path.basename(PIN_NODE), group, GRANTED_MODE)
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

    def __init__(self, root: Root, runner: Runner, request: Request) -> None:
        self._root = root
        self._runner = runner
        self._request = request
        self.warnings: list[str] = []
        self.record = _read_record(root)
        self.groups = read_groups(root)
        self.group = request.group
        self._users = list(dict.fromkeys(request.users))
        if self.group is not None:
            self._check(self.group)
        self._leaving = self._memberships_to_drop(self.record)
        self._joining = self._memberships_to_add()
        self._make_group = self.group is not None and self.group not in self.groups
        old = self.record
        self._drop_group = bool(old and old.group_made and old.group != self.group and old.group in self.groups)
        self._keep_if_primary()
        self._backend = self._settle_backend()
        self._units: dict[str, Unit] = {}
        self._services = self._plan_services()
        self._programs = self._plan_programs()
        self.nodes = read_nodes(root)
        self._grants_mount = False
        self._mount, self._mount_wanted = self._plan_mount()
        self._binaries = self._plan_binaries()
        self._record_file = FileSet(root, [self._rendered_record()])
        self._files = FileSet(root, self._rendered_files())
        self.before = self._state_before()

    # --- planning: the group ---

    def _check(self, group: str) -> None:
        if not re.match(r"^[a-z_][a-z0-9_-]{0,31}\Z", group):
            raise HostError(
                "group",
                "%r is not a group name." % group,
                evidence=["expected lower-case letters, digits, - and _, at most 32, not starting with a digit"],
                remedy="Choose another name.",
            )
        account = self.groups.get(group)
        gid = self._request.gid
        if account is not None and gid is not None and account.gid != gid:
            raise HostError(
                "group",
                "The group %s has another number than declared." % group,
                evidence=["/etc/group: %s has gid %d, declared is %d" % (group, account.gid, gid)],
                remedy="Leave gid out, or declare %d: files that belong to the group would lose it." % account.gid,
            )
        taken = [one.name for one in self.groups.values() if one.gid == gid]
        if account is None and taken:
            raise HostError(
                "group",
                "The group number %d is taken." % gid,
                evidence=["/etc/group: gid %d is %s" % (gid, taken[0])],
                remedy="Leave gid out, or declare a free one.",
            )
        known = _directory_group(self._root, group, gid) if account is None else None
        if known:
            raise HostError(
                "group",
                "The group %s cannot be made: a directory service has its name or number." % group,
                evidence=["/etc/group: no line for %s" % group, "name service switch: %s" % known],
                remedy="Choose another name or number. udev gives devices to groups of /etc/group only.",
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

    def _keep_if_primary(self) -> None:
        """Keep a group that is some user's primary one: nobody can remove it. Everything else is still revoked."""
        if not self._drop_group or self.record is None:
            return
        account = self.groups[self.record.group]
        users = [name for name, gid in _primary_groups(self._root) if gid == account.gid]
        if users:
            self._drop_group = False
            self.warnings.append(
                "The group %s stays: it is the primary group of %s. Once it is not (usermod -g), remove it by"
                " `groupdel %s`." % (account.name, ", ".join(users), account.name)
            )

    def _gid(self) -> int:
        account = self.groups.get(self.group or "")
        number = account.gid if account else self._request.gid
        return _UNKNOWN if number is None else number

    def _old_gid(self) -> int | None:
        account = self.groups.get(self.record.group) if self.record else None
        return account.gid if account else None

    # --- planning: services and programs ---

    def _settle_backend(self) -> str | None:
        """Return the backend that serves the host, None where no service or program is declared and none matters."""
        request = self._request
        if self.group is None or not (request.services or request.binaries):
            return None
        choice = _backend.choose(self._root, request.backend, request.accept_unsafe)
        if choice.backend is None:
            raise Refused(choice.refusals)
        return choice.backend

    def _application(self, name: str, declared: dict[str, Any], how: str, backend: str) -> Application:
        profile = declared.get("profile") or self._request.profile
        asked = capabilities.parse(declared.get("capabilities") or self._request.capabilities)
        if profile == "custom" and not asked:
            raise HostError(
                "profile",
                "The profile custom of %s says nothing of what it needs." % name,
                evidence=["capabilities: none"],
                remedy="List its capabilities, or choose one of the profiles %s." % ", ".join(profiles.PROFILES[:-1]),
            )
        unlimited = self._request.memlock == "unlimited"
        return Application(name, profile, profiles.needs(profile, backend, how, unlimited, asked))

    def _plan_services(self) -> list[Application]:
        if self._backend is None:
            return []
        found, reasons = [], []
        for declared in self._request.services:
            one = self._application(full_name(declared["name"]), declared, profiles.SERVICE, self._backend)
            unit = read_unit(self._root, one.name)
            reasons += _units.refusals(self._root, one.name, unit, one.grants)
            if one.profile == "ovs" and self._backend != _backend.IOMMU:
                reasons += _units.ovs_refusals(self._root)
            if unit is not None:
                self._units[one.name] = unit
                if unit.as_root:
                    # Root has them all, as far as the unit does not bound them.
                    held = unit.bounding if unit.bounding is not None else set(capabilities.CAPABILITIES)
                    one = one._replace(grants=[grant for grant in one.grants if grant.capability not in held])
                found.append(one)
        if reasons:
            raise Refused(reasons)
        return found

    def _plan_programs(self) -> list[Application]:
        if self._backend is None:
            return []
        found: dict[str, Application] = {}
        for declared in self._request.binaries:
            name = self._program_path(declared["path"])
            one = self._application(name, declared, profiles.BINARY, self._backend)
            if name in found:  # by another name: it needs what either use of it needs
                had = {grant.capability for grant in found[name].grants}
                more = [grant for grant in one.grants if grant.capability not in had]
                one = found[name]._replace(grants=found[name].grants + more)
            found[name] = one
        return list(found.values())

    def _program_path(self, path: str) -> str:
        if not path.startswith("/"):
            raise HostError(
                "binary",
                "%r is no absolute path." % path,
                evidence=["binaries: path %s" % path],
                remedy="Give the program's full path, such as /usr/bin/dpdk-testpmd.",
            )
        # The capabilities are on the file that a link leads to.
        return self._root.realpath(path)

    def _plan_binaries(
        self,
    ) -> dict[str, tuple[file_capabilities.State, file_capabilities.State, file_capabilities.Recorded | None]]:
        """Return what each program's file is, what it becomes, and what to remember of it."""
        plan = {}
        reasons = []
        recorded = self.record.binaries if self.record else {}
        old_gid = self._old_gid()
        for one in self._programs:
            if not one.grants:
                continue
            found = file_capabilities.look(self._root, one.name)
            refused = file_capabilities.refusals(self._root, one.name, found[1] if found else None)
            if refused or found is None:
                reasons += refused
                continue
            inode, now = found
            record = recorded.get(one.name)
            # A file that came with an upgrade is another file.
            if record is None or record.inode != inode:
                record = file_capabilities.Recorded(inode, now, 0, "")
            bits = capabilities.mask([grant.capability for grant in one.grants])
            want = file_capabilities.granted(record.before, self._gid(), bits, one.name)
            plan[one.name] = (now, want, record._replace(mode=want.mode, capabilities=want.capabilities or ""))
        if reasons:
            raise Refused(reasons)
        for path, record in recorded.items():
            found = file_capabilities.look(self._root, path) if path not in plan else None
            if found is not None:
                gid = _UNKNOWN if old_gid is None else old_gid
                back, note = file_capabilities.taken_back(found[1], record, gid)
                plan[path] = (found[1], back, None)
                if note:
                    self.warnings.append("%s %s (%s)." % (path, note, _describe(file_capabilities.show(back, path))))
        return plan

    # --- planning: memory ---

    def _plan_mount(self) -> tuple[Node | None, Node | None]:
        """Return the root of /dev/hugepages as it is and as it shall be.

        One that somebody else gave to a group, this one or another, stays as it is: noiommu_hugepage_mounts, for one,
        declares group and mode of its mounts itself.
        """
        path = _units.HUGETLBFS
        if all((one.target, one.fstype) != (path, "hugetlbfs") for one in read_mounts(self._root)):
            return None, None
        now = _node(self._root, path)
        before = self.record.hugetlbfs if self.record else None
        if self.group is not None and self._request.hugetlbfs:
            if (now.uid, now.gid) == (0, 0) or (before is not None and now.gid in (self._old_gid(), self._gid())):
                self._grants_mount = True
                return now, Node(path, 0, self._gid(), _units.HUGETLBFS_MODE)
            if now.gid != self._gid():
                self.warnings.append(
                    "%s is left as it is: it belongs to uid %d and gid %d already." % (path, now.uid, now.gid)
                )
            return now, now
        return now, before if before is not None and now.gid == self._old_gid() else now

    # --- planning: files ---

    def _new_record(self) -> Record | None:
        if self.group is None:
            return None
        old = self.record
        same = old if old is not None and old.group == self.group else None
        earlier = [name for name in (same.users_added if same else []) if name in self._users]
        added = earlier + [name for name in self._joining if name not in earlier]
        mount = None
        if self._grants_mount:
            mount = old.hugetlbfs if old is not None and old.hugetlbfs is not None else self._mount
        return Record(
            self.group,
            bool(same and same.group_made) or self._make_group,
            sorted(added),
            {path: record for path, (_now, _want, record) in self._binaries.items() if record is not None},
            mount,
            sorted(one.name for one in self._services),
        )

    def _rendered_record(self) -> RenderedFile:
        new = self._new_record()
        return RenderedFile(ACCESS_RECORD, _render_record(new) if new else None)

    def _union(self) -> RenderedFile:
        """The record of what is made together with what is still to be taken back."""
        old, new = self.record, self._new_record()
        if old is None or new is None or old.group != new.group:
            return self._rendered_record()
        both = new._replace(
            users_added=sorted({*old.users_added, *new.users_added}),
            binaries={**old.binaries, **new.binaries},
            hugetlbfs=new.hugetlbfs or old.hugetlbfs,
            services=sorted({*old.services, *new.services}),
        )
        return RenderedFile(ACCESS_RECORD, _render_record(both))

    def _rendered_files(self) -> list[RenderedFile]:
        group, memlock = self.group, self._request.memlock
        files = [
            RenderedFile(UDEV_RULES, udev_rules(group) if group else None),
            RenderedFile(LIMITS, limits(group, memlock) if group else None),
        ]
        mount = _units.hugetlbfs_drop_in(self._root, self._gid(), _HEADER) if self._grants_mount else None
        files.append(RenderedFile(drop_in_path(HUGETLBFS_UNIT), mount))
        nodes = [PIN_NODE] if self._backend == _backend.DKMS else []
        for one in self._services:
            text = _units.drop_in(self._units[one.name], group or "", memlock, one.grants, nodes, _HEADER)
            files.append(RenderedFile(drop_in_path(one.name), text))
        wanted = {one.path for one in files}
        # Whatever else there is by our name is of services that are listed no more.
        for name in self._root.listdir(UNITS_DIR):
            path = "%s/%s/%s" % (UNITS_DIR, name, DROP_IN)
            if name.endswith(".service.d") and path not in wanted and self._is_ours(path):
                files.append(RenderedFile(path, None))
        return files

    def _is_ours(self, path: str) -> bool:
        data = self._root.read_bytes(path)
        return data is not None and data.decode("utf-8", "replace").startswith(_HEADER)

    # --- what it comes to ---

    def _wanted_nodes(self) -> list[Node]:
        """Return the existing nodes as the rule makes them.

        Without a group only nodes that a group of ours was given are taken back: others are none of our business.
        """
        if self.group is not None:
            return [Node(node.path, 0, self._gid(), GRANTED_MODE) for node in self.nodes]
        old = self._old_gid()
        return [Node(node.path, 0, 0, KERNEL_MODE) if node.gid == old else node for node in self.nodes]

    def _node_changes(self) -> list[tuple[Node, Node]]:
        pairs = list(zip(self.nodes, self._wanted_nodes()))
        if self._mount is not None and self._mount_wanted is not None:
            pairs.append((self._mount, self._mount_wanted))
        return [(had, want) for had, want in pairs if had != want]

    def _binary_changes(self) -> list[tuple[str, file_capabilities.State, file_capabilities.State]]:
        return [(path, now, want) for path, (now, want, _record) in self._binaries.items() if now != want]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(
            self._make_group
            or self._drop_group
            or self._leaving
            or self._joining
            or self._record_file.changed
            or self._files.changed
            or self._node_changes()
            or self._binary_changes()
        )

    @property
    def changed_paths(self) -> list[str]:
        """The files that are written or removed."""
        return self._record_file.changed_paths + self._files.changed_paths

    def _names(self) -> list[str]:
        return sorted({name for name in (self.group, self.record.group if self.record else None) if name})

    def _state_before(self) -> dict[str, Any]:
        accounts = [self.groups[name] for name in self._names() if name in self.groups]
        return {
            "groups": {one.name: {"gid": one.gid, "members": sorted(one.members)} for one in accounts},
            "nodes": _show_nodes([*self.nodes, *filter(None, [self._mount])]),
            "binaries": {
                path: file_capabilities.show(now, path) for path, (now, _want, _record) in self._binaries.items()
            },
        }

    @property
    def after(self) -> dict[str, Any]:
        """Return groups, nodes and programs as they become."""
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
            groups[name] = {"gid": account.gid if account else self._request.gid, "members": sorted(members)}
        return {
            "groups": groups,
            "nodes": _show_nodes([*self._wanted_nodes(), *filter(None, [self._mount_wanted])]),
            "binaries": {
                path: file_capabilities.show(want, path) for path, (_now, want, _record) in self._binaries.items()
            },
        }

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
            for header, key in (("/etc/group", "groups"), ("device nodes", "nodes"), ("programs", "binaries"))
            if self.before[key] != after[key]
        ]
        return parts + self._record_file.diff() + self._files.diff()

    def grants(self) -> list[dict[str, str]]:
        """Say who gets what, and why."""
        if self.group is None:
            return []
        to, memlock = "group " + self.group, self._request.memlock
        found = [
            _grant(to, "%s/N, %04o" % (VFIO_DIR, GRANTED_MODE), "whoever opens a VFIO group drives its devices"),
            _grant(to, "memlock " + memlock, "VFIO pins the memory that a device may reach, and counts it as locked"),
        ]
        if self._grants_mount:
            found.append(
                _grant(to, "%s, %04o" % (_units.HUGETLBFS, _units.HUGETLBFS_MODE), "DPDK keeps its memory in files")
            )
        found += [_grant("user " + name, to, "declared under users") for name in self._users]
        for kind, one in [("service", one) for one in self._services] + [("binary", one) for one in self._programs]:
            name = "%s %s" % (kind, one.name)
            unit = self._units.get(one.name) if kind == "service" else None
            if unit is not None:
                found.append(_grant(name, "memlock " + memlock, "VFIO counts pinned memory; PAM limits no service"))
                if not unit.as_root:
                    found.append(_grant(name, to, "opens the device nodes and the hugetlbfs without being root"))
            found += [_grant(name, *grant) for grant in one.grants]
            if not one.grants:
                rooted = unit is not None and unit.as_root and self._backend != _backend.IOMMU
                found.append(_grant(name, "no capability", "it runs as root" if rooted else profiles.NONE_NEEDED))
        return found

    def restart(self) -> list[dict[str, Any]]:
        """Say which running services have not what they need, since they were started before they got it."""
        account = read_groups(self._root).get(self.group or "")
        found = []
        for one in self._services:
            gid = account.gid if account else None
            seen = _units.unserved(self._root, self._units[one.name], gid, self._request.memlock, one.grants)
            if seen:
                found.append({"service": one.name, "evidence": seen})
        return found

    # --- doing it ---

    def apply(self) -> None:
        """Do it, or leave everything as it was.

        What is made is recorded before it is made, and forgotten after it is gone, so that a killed run can be taken
        back.
        """
        undo: list[Callable[[], object]] = []
        try:
            if self.group is None:
                self._take_back(undo)
            else:
                self._give(self.group, undo)
        except HostError as exc:
            exc.evidence += self._undone(undo)
            raise

    def _undone(self, undo: list[Callable[[], object]]) -> list[str]:
        """Put back what was done, the last first; return what could not be."""
        problems: list[str] = []
        for number, step in reversed(list(enumerate(undo))):
            if problems and number == 0 and self.group is not None:
                break  # the record: without it, the next run would take what is left for somebody else's
            try:
                left = step()
                problems += left if isinstance(left, list) else []
            except HostError as exc:
                problems.append("not put back: %s" % exc.message)
        return problems

    def _give(self, group: str, undo: list[Callable[[], object]]) -> None:
        self._write(FileSet(self._root, [self._union()]), undo)
        if self._make_group:
            number = [] if self._request.gid is None else ["--gid", str(self._request.gid)]
            self._run("groupadd", "--system", *number, group)
            undo.append(lambda: self._run("groupdel", group))
        for name in self._joining:
            self._join(group, name)
            undo.append(lambda name=name: self._run("gpasswd", "--delete", name, group))
        if self._make_group:
            self._learn_number(group)
        self._write(self._files, undo)
        # Only after the group is there: udev looks it up when it reads the rule, and ignores one that is not.
        self._reload()
        self._set_nodes(undo)
        self._set_binaries(undo)
        self._leave(undo)
        self._sweep()
        self._write(FileSet(self._root, [self._rendered_record()]), undo)

    def _learn_number(self, group: str) -> None:
        """Put the number that groupadd chose where the plan had to leave it open."""
        self.groups[group] = read_groups(self._root)[group]
        gid = self._gid()
        for path, (now, want, record) in self._binaries.items():
            if want.gid == _UNKNOWN:
                self._binaries[path] = (now, want._replace(gid=gid), record)
        if self._mount_wanted is not None and self._mount_wanted.gid == _UNKNOWN:
            self._mount_wanted = self._mount_wanted._replace(gid=gid)
        self._files = FileSet(self._root, self._rendered_files())

    def _take_back(self, undo: list[Callable[[], object]]) -> None:
        self._set_binaries(undo)
        self._set_nodes(undo)
        self._write(self._files, undo)
        self._reload()
        self._leave(undo)
        self._sweep()
        self._write(self._record_file, undo)
        self._root.remove_empty_dir(os.path.dirname(ACCESS_RECORD))

    def _sweep(self) -> None:
        """Remove directories of drop-ins that became empty, in this run or in one that was killed."""
        paths = [path for path in self._files.changed_paths if path.startswith(UNITS_DIR)]
        if self.record is not None:
            units = self.record.services + ([HUGETLBFS_UNIT] if self.record.hugetlbfs else [])
            paths += map(drop_in_path, units)
        for path in paths:
            self._root.remove_empty_dir(os.path.dirname(path))

    def _write(self, files: FileSet, undo: list[Callable[[], object]]) -> None:
        files.apply()
        undo.append(files.rollback)

    def _leave(self, undo: list[Callable[[], object]]) -> None:
        if self.record is None:
            return
        group = self.record.group
        if self._drop_group:
            self._run("groupdel", group)
            undo.append(lambda: self._make_again(self.groups[group]))
            return
        for name in self._leaving:
            self._run("gpasswd", "--delete", name, group)
            undo.append(lambda name=name: self._join(group, name))

    def _make_again(self, account: Account) -> None:
        self._run("groupadd", "--system", "--gid", str(account.gid), account.name)
        for name in account.members:
            self._join(account.name, name)

    def _join(self, group: str, name: str) -> None:
        self._run("usermod", "--append", "--groups", group, name)

    def _reload(self) -> None:
        """Have udev and systemd read what was written. Both do so by themselves sooner or later: no failure."""
        if UDEV_RULES in self._files.changed_paths:
            self._warn("udev did not reload its rules", self._runner.run("udevadm", "control", "--reload"))
        if any(path.startswith(UNITS_DIR) for path in self._files.changed_paths):
            self._warn("systemd did not reload its units", systemd.reload(self._runner))

    def _warn(self, failure: str, done: RunResult) -> None:
        if done.rc != 0:
            self.warnings.append("%s: %s" % (failure, done.stderr.strip() or "rc %d" % done.rc))

    def _set_nodes(self, undo: list[Callable[[], object]]) -> None:
        for had, want in self._node_changes():
            self._set_node(want)
            undo.append(lambda had=had: self._set_node(had))

    def _set_node(self, want: Node) -> None:
        try:
            os.chown(self._root.path(want.path), want.uid, want.gid)
            os.chmod(self._root.path(want.path), want.mode)
        except FileNotFoundError:
            pass  # The device went away; udev gives the next one to the group.
        except OSError as exc:
            raise HostError(
                "file",
                "Could not give %s to its group: %s." % (want.path, exc.strerror),
                evidence=["%s -> gid %d, mode %04o" % (want.path, want.gid, want.mode)],
                remedy="Run with become: true.",
            ) from exc

    def _set_binaries(self, undo: list[Callable[[], object]]) -> None:
        for path, now, want in self._binary_changes():
            undo.append(lambda path=path, now=now: self._restore_binary(path, now))
            file_capabilities.apply(self._root, path, now, want)

    def _restore_binary(self, path: str, was: file_capabilities.State) -> None:
        found = file_capabilities.look(self._root, path)
        if found is not None:
            file_capabilities.apply(self._root, path, found[1], was)

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


def _grant(to: str, what: str, why: str) -> dict[str, str]:
    return {"to": to, "what": what, "why": why}


def _show_nodes(nodes: list[Node]) -> dict[str, dict[str, Any]]:
    return {
        node.path: {"uid": node.uid, "gid": None if node.gid == _UNKNOWN else node.gid, "mode": "%04o" % node.mode}
        for node in nodes
    }


def _describe(entry: dict[str, Any]) -> str:
    return ", ".join("%s=%s" % (key, value) for key, value in entry.items())


def _lines(entries: dict[str, dict[str, Any]]) -> str:
    return "".join("%s: %s\n" % (name, _describe(entry)) for name, entry in entries.items())
