# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's local groups and users. Small, because the program on the host contains it."""

from __future__ import annotations

from typing import NamedTuple

from .._base.fs import Root


class Account(NamedTuple):
    """One line of /etc/group."""

    name: str
    gid: int
    members: list[str]


def user_ids(root: Root) -> dict[str, int]:
    """Return the numbers of the local users by name."""
    lines = (line.split(":") for line in (root.read_text("/etc/passwd") or "").splitlines())
    return {fields[0]: int(fields[2]) for fields in lines if len(fields) > 3 and fields[2].isdigit()}


def read_groups(root: Root) -> dict[str, Account]:
    """Return the groups by name."""
    groups = {}
    for line in (root.read_text("/etc/group") or "").splitlines():
        fields = line.split(":")
        if len(fields) == 4 and fields[2].isdigit():
            groups[fields[0]] = Account(fields[0], int(fields[2]), [name for name in fields[3].split(",") if name])
    return groups
