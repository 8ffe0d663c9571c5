# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the access of users, services and programs differs from the record of what was granted."""

from __future__ import annotations

import os
import stat
from typing import Any, Iterator

from .._base.fs import Root
from .._base.paths import ACCESS_RECORD, GRANTED_MODE, HUGETLBFS_UNIT, LIMITS, UDEV_RULES, drop_in_path
from .._base.records import load_record
from .._base.schema import anything, fields, items, table, text
from .._host.accounts import read_groups
from .._policy.granted_nodes import CONTAINER, can_use_container, granted_nodes

# What is read of the role's record.
_GRANTED = fields(
    {"group": text(), "users_added": items(text())},
    {
        "services": items(text()),
        "hugetlbfs": anything(),
        "binaries": table(fields({"capabilities": anything()}, more=True)),
    },
    more=True,
)


def drift(root: Root) -> Iterator[str]:
    """Yield what differs: members, files, device nodes, capabilities."""
    damage, remedy = "The record of what was granted is damaged.", "Run the deploy playbook: it says what to do."
    granted = load_record(root, ACCESS_RECORD, dict, damage, remedy, _GRANTED)
    if granted is None:
        return
    group = granted["group"]
    account = read_groups(root).get(group)
    if account is None:
        yield "the group %s is gone" % group
        return
    for user in granted["users_added"]:
        if user not in account.members:
            yield "%s is not a member of %s" % (user, group)
    yield from _files(root, granted)
    yield from _nodes(root, group, account.gid)
    for path, program in sorted(granted.get("binaries", {}).items()):
        if program["capabilities"] and not has_capabilities(root, path):
            yield "%s has lost its capabilities" % path


def _files(root: Root, granted: dict[str, Any]) -> Iterator[str]:
    if 'GROUP:="%s"' % granted["group"] not in (root.read_text(UDEV_RULES) or ""):
        yield "%s does not give the devices to %s" % (UDEV_RULES, granted["group"])
    drop_ins = granted.get("services", []) + ([HUGETLBFS_UNIT] if granted.get("hugetlbfs") else [])
    for path in [LIMITS, *map(drop_in_path, drop_ins)]:
        if not root.exists(path):
            yield "%s is missing" % path


def _nodes(root: Root, group: str, gid: int) -> Iterator[str]:
    for path, node in sorted(nodes(root).items()):
        if (node.st_gid, stat.S_IMODE(node.st_mode)) != (gid, GRANTED_MODE):
            yield "%s has gid %d and mode %04o" % (path, node.st_gid, stat.S_IMODE(node.st_mode))
    container = _stat(root, CONTAINER)
    if container is not None and not can_use_container(container.st_mode, container.st_gid, gid):
        yield "%s has mode %04o: %s cannot use its devices" % (CONTAINER, stat.S_IMODE(container.st_mode), group)


def nodes(root: Root) -> dict[str, os.stat_result]:
    """Return the device nodes that the group was given."""
    found = {}
    for path in granted_nodes(root):
        node = _stat(root, path)
        if node is not None:  # else its device is just being released
            found[path] = node
    return found


def _stat(root: Root, path: str) -> os.stat_result | None:
    try:
        return os.stat(root.path(path))
    except FileNotFoundError:
        return None


def has_capabilities(root: Root, path: str) -> bool:
    """Whether a program's file has any; an upgrade replaces it by a file without them."""
    try:
        return bool(os.getxattr(root.path(path), "security.capability"))
    except OSError:
        return False
