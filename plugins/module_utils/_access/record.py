# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of what was granted on a host; nothing else may be revoked."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base.files import RenderedFile
from .._base.fs import Root
from .._base.paths import ACCESS_RECORD
from .._base.records import dump_json, load_record
from . import file_capabilities
from .node import Node


class Record(NamedTuple):
    """What this collection created and granted, and so may remove and revoke."""

    group: str
    group_made: bool
    users_added: list[str]
    binaries: dict[str, file_capabilities.Recorded]
    hugetlbfs: Node | None  # as it was before
    services: list[str] = []  # with a drop-in of ours
    container: Node | None = None  # /dev/vfio/vfio as it was before


def read(root: Root) -> Record | None:
    """Return what earlier runs granted, if anything."""
    damage = "The record of what was granted is damaged."
    remedy = (
        "Remove %s; the group, memberships and file capabilities (getcap -r /usr) granted earlier are then left to you."
        % ACCESS_RECORD
    )
    return load_record(root, ACCESS_RECORD, _parse, damage, remedy)


def _parse(stored: dict[str, Any]) -> Record:
    binaries = {
        path: file_capabilities.Recorded(
            program["inode"], file_capabilities.State(*program["before"]), program["mode"], program["capabilities"]
        )
        for path, program in stored.get("binaries", {}).items()
    }
    mount, container = stored.get("hugetlbfs"), stored.get("container")
    return Record(
        str(stored["group"]),
        bool(stored["group_made"]),
        [str(user) for user in stored["users_added"]],
        binaries,
        Node(*mount) if mount else None,
        [str(service) for service in stored.get("services", [])],
        Node(*container) if container else None,
    )


def rendered(record: Record | None) -> RenderedFile:
    """Return the record's file; without a record, the file must not exist."""
    if record is None:
        return RenderedFile(ACCESS_RECORD, None)
    stored = record._asdict()
    stored["binaries"] = {path: program._asdict() for path, program in sorted(record.binaries.items())}
    return RenderedFile(ACCESS_RECORD, dump_json(stored))


def union(old: Record | None, new: Record) -> Record:
    """Return what is about to be granted together with what is not yet revoked."""
    if old is None or old.group != new.group:
        return new
    return new._replace(
        users_added=sorted({*old.users_added, *new.users_added}),
        binaries={**old.binaries, **new.binaries},
        hugetlbfs=new.hugetlbfs or old.hugetlbfs,
        services=sorted({*old.services, *new.services}),
        container=new.container or old.container,
    )
