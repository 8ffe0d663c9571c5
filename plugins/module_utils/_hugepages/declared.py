# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pools and mounts that a host's declaration asks for, checked against the host and each other."""

from __future__ import annotations

import re
from typing import Any, Callable, Container, Iterator, Mapping, NamedTuple, Sequence, TypeVar

from .._base.errors import HostError, Refused
from .._base.fs import Root
from .._base.schema import Problem, refused
from .._host.hugetlb import NODES_DIR, SIZES_DIR, Pool, Pools, format_size, parse_size

# The options by which pools and mounts are declared, for every module that takes them.
POOLS_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "size": {"type": "str", "required": True},
        "count": {"type": "int", "required": True},
        "node": {"type": "int"},
    },
}
MOUNTS_SPEC: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "path": {"type": "path", "required": True},
        "size": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0770"},
        "uid": {"type": "int"},
        "owner": {"type": "str"},
        "gid": {"type": "int"},
        "group": {"type": "str"},
        "limit": {"type": "str"},
    },
}


_T = TypeVar("_T")


class WantedPool(NamedTuple):
    """A pool and its declared number of pages."""

    pool: Pool
    pages: int


class WantedMount(NamedTuple):
    """A mount as declared."""

    path: str
    size: int  # of its pages
    mode: int
    uid: int
    gid: int | None  # None in a dry run, for a group that an earlier task would create
    limit: int | None  # of all files together

    @property
    def options(self) -> str:
        """What mount(8) and a mount unit take."""
        gid = "?" if self.gid is None else "%d" % self.gid
        text = "pagesize=%s,mode=%04o,uid=%d,gid=%s" % (format_size(self.size), self.mode, self.uid, gid)
        return text + (",size=%d" % self.limit if self.limit is not None else "")

    @property
    def unit(self) -> str:
        """The name that systemd requires for a mount there."""
        return unit_name(self.path)

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
    """Return a path escaped for a unit's name."""
    text = path.strip("/").replace("/", "\0")
    found = re.sub(
        r"[^A-Za-z0-9:_.\0]|^\.",
        lambda match: "".join("\\x%02x" % byte for byte in match[0].encode("utf-8", "surrogateescape")),
        text,
    )
    return found.replace("\0", "-")


def unit_name(path: str) -> str:
    """Return the name of the unit that mounts something at a path."""
    return escape(path) + ".mount"


def _each(entries: list[dict[str, Any]], parse: Callable[[dict[str, Any]], _T]) -> list[_T]:
    """Parse every entry; raise what is wrong with all of them, each with its place in the list."""
    wanted, refusals = [], []
    for number, entry in enumerate(entries):
        try:
            wanted.append(parse(entry))
        except HostError as exc:
            if len(entries) > 1:
                given = ", ".join("%s: %s" % item for item in entry.items() if item[1] is not None)
                exc.evidence.append("[%d]: %s" % (number, given))
            refusals.append(exc)
    if refusals:
        raise Refused(refusals)
    return wanted


# --- pools ---


def parse_pools(host: Pools, pools: list[dict[str, Any]]) -> list[WantedPool]:
    """Check the declared pools against the host and each other."""
    wanted = _each(pools, lambda entry: _parse_pool(host, entry))
    _refuse_overlap(wanted)
    return wanted


def _parse_pool(host: Pools, entry: dict[str, Any]) -> WantedPool:
    pool = Pool(parse_size(entry["size"]), entry.get("node"))
    if pool.size not in host.sizes:
        raise HostError(
            "pool",
            "This host has no hugetlb pages of size %s." % format_size(pool.size),
            evidence=["%s has: %s" % (SIZES_DIR, ", ".join(map(format_size, host.sizes)) or "nothing")],
            remedy="Declare one of these sizes."
            if host.sizes
            else "Boot a kernel with CONFIG_HUGETLBFS on a processor that has large pages.",
        )
    if pool.node is not None and pool not in host.pools_of(pool.size):
        raise HostError(
            "pool",
            "This host has no NUMA node %d." % pool.node,
            evidence=["%s has: %s" % (NODES_DIR, ", ".join("node%d" % node for node in host.nodes) or "no nodes")],
            remedy="Declare one of these nodes, or leave the node out.",
        )
    _require_count(pool, entry["count"])
    return WantedPool(pool, entry["count"])


def _require_count(pool: Pool, count: int) -> None:
    if count < 0:
        raise HostError(
            "pool",
            "A pool cannot have %d pages." % count,
            evidence=["pool %s: count %d" % (pool.label, count)],
            remedy="Declare 0 or more.",
        )


def _refuse_overlap(wanted: list[WantedPool]) -> None:
    evidence = ["pools: %s" % ", ".join(pool.label for pool, _count in wanted)]
    checked: set[Pool] = set()
    for pool, _count in wanted:
        if pool in checked:
            raise HostError(
                "pool",
                "The pool %s is declared twice." % pool.label,
                evidence=evidence,
                remedy="Keep one of the two.",
            )
        checked.add(pool)
    for pool, _count in wanted:
        if pool.node is not None and Pool(pool.size, None) in checked:
            raise HostError(
                "pool",
                "The size %s is declared for the whole host and for a NUMA node." % format_size(pool.size),
                evidence=evidence,
                remedy="Declare this size either without a node, or for each node.",
            )


# --- mounts ---


def parse_mounts(
    root: Root, host: Pools, mounts: list[dict[str, Any]], groups_to_come: Container[str]
) -> list[WantedMount]:
    """Check the declared mounts against the host and each other; ``groups_to_come`` need not exist yet."""
    wanted = _each(mounts, lambda entry: _parse_mount(root, host, entry, groups_to_come))
    _refuse_nested([mount.path for mount in wanted])
    return wanted


def _refuse_nested(paths: list[str]) -> None:
    for number, path in enumerate(paths):
        for other in paths[:number] + paths[number + 1 :]:
            if (other + "/").startswith(path + "/"):
                cause = "%s and %s are the same, or one is inside the other." % (path, other)
                raise bad_mount(cause, paths, "Keep one of them.")


def _parse_mount(root: Root, host: Pools, entry: dict[str, Any], groups_to_come: Container[str]) -> WantedMount:
    path, size = entry["path"], parse_size(entry["size"])
    _require_mount_point(root, path)
    if size not in host.sizes:
        evidence = ["%s has: %s" % (SIZES_DIR, ", ".join(map(format_size, host.sizes)) or "nothing")]
        cause = "This host has no hugetlb pages of size %s." % format_size(size)
        raise bad_mount(cause, evidence, "Declare one of these sizes.")
    uid = _account_number(root, "user", entry.get("uid"), entry.get("owner"))
    gid: int | None = entry.get("gid")
    # In a dry run of a whole play, the task that would create the group has not created it.
    if entry.get("group") not in groups_to_come or _find_account(root, "group", entry["group"]) is not None:
        gid = _account_number(root, "group", gid, entry.get("group"))
    limit = _parse_limit(path, size, entry.get("limit"))
    return WantedMount(path, size, _parse_mode(str(entry.get("mode") or "0770")), uid, gid, limit)


def _parse_limit(path: str, size: int, declared: Any) -> int | None:
    limit = None if declared is None else parse_size(declared)
    if limit is not None and limit % size:
        cause = "The limit of %s is not a whole number of pages." % path
        raise bad_mount(cause, ["limit %d, page size %d" % (limit, size)], "Make it a multiple of the page size.")
    return limit


def _require_mount_point(root: Root, path: str) -> None:
    _require_path(path)
    real = root.realpath(path)
    if real != path:  # the path that the kernel shows, and that systemd wants
        cause = "The mount point %s goes through a symbolic link." % path
        raise bad_mount(cause, ["%s is really %s" % (path, real)], "Declare %s instead." % real)


def _require_path(path: str) -> None:
    if not re.match(r"^(/[A-Za-z0-9:_.@+-]+)+\Z", path) or {"..", "."} & set(path.split("/")):
        evidence = ["expected an absolute path of letters, digits and :_.@+-, without . and .."]
        raise bad_mount("%r cannot be a mount point." % path, evidence, "Choose another path.")


def _parse_mode(mode: str) -> int:
    # Without quotes, YAML reads 0770 as a number whose digits may be octal as well: a leading zero rules that out.
    if not re.match(r"^0[01]?[0-7]{3}$", mode):
        evidence = ["mode: %s%s" % (mode, "" if mode.startswith("0") else ", without a leading zero")]
        remedy = 'Write it in octal, with a leading zero and in quotes: "0770". The most is "01777".'
        raise bad_mount("%r is not a mode." % mode, evidence, remedy)
    return int(mode, 8)


_ACCOUNTS = {"user": "/etc/passwd", "group": "/etc/group"}


def _find_account(root: Root, kind: str, name: str | None) -> int | None:
    lines = (line.split(":") for line in (root.read_text(_ACCOUNTS[kind]) or "").splitlines())
    numbers = (fields[2] for fields in lines if len(fields) > 2 and fields[0] == name)
    return next((int(number) for number in numbers if number.isdecimal()), None)


def _account_number(root: Root, kind: str, number: int | None, name: str | None) -> int:
    if name is None:
        return number or 0
    path, found = _ACCOUNTS[kind], _find_account(root, kind, name)
    if found is None:
        raise bad_mount(
            "There is no %s %s on this host." % (kind, name),
            ["%s: no line for %s" % (path, name)],
            "Create it first, or declare its number instead.",
        )
    if number is not None and number != found:
        evidence = ["%s: %s is %d, declared is %d" % (path, name, found, number)]
        raise bad_mount(
            "The %s %s has another number than declared." % (kind, name), evidence, "Leave one of the two out."
        )
    return found


def bad_mount(message: str, evidence: list[str], remedy: str) -> HostError:
    """Return the error for a mount that cannot be made as declared."""
    return HostError("mount", message, evidence=evidence, remedy=remedy)


# --- what no host can have ---


def pool_problems(entries: Sequence[Mapping[str, Any]], where: str) -> Iterator[Problem]:
    """Yield what is wrong with pools on any host. That they fit ``POOLS_SPEC`` was checked before."""
    wanted: list[WantedPool] = []
    for number, entry in enumerate(entries):
        try:
            wanted.append(_any_pool(entry))
        except HostError as exc:
            yield refused(exc, "%s[%d]" % (where, number))
    try:
        _refuse_overlap(wanted)
    except HostError as exc:
        yield refused(exc, where)


def _any_pool(entry: Mapping[str, Any]) -> WantedPool:
    node = None if entry.get("node") is None else int(entry["node"])
    pool = Pool(parse_size(entry["size"]), node)
    _require_count(pool, int(entry["count"]))
    return WantedPool(pool, int(entry["count"]))


def mount_problems(entries: Sequence[Mapping[str, Any]], where: str) -> Iterator[Problem]:
    """Yield what is wrong with mounts on any host. That they fit ``MOUNTS_SPEC`` was checked before."""
    for number, entry in enumerate(entries):
        try:
            path = str(entry["path"])
            if not re.search(r"^~|\$", path):  # which the host expands
                _require_path(path)
            _parse_mode(str(entry.get("mode") or "0770"))
            _parse_limit(path, parse_size(entry["size"]), entry.get("limit"))
        except HostError as exc:
            yield refused(exc, "%s[%d]" % (where, number))
    try:
        _refuse_nested([str(entry["path"]) for entry in entries])
    except HostError as exc:
        yield refused(exc, where)
