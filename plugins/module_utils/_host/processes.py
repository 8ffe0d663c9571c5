# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running processes and the files that they have open."""

from __future__ import annotations

import re
from typing import Collection, Iterator, NamedTuple

from .._base.fs import Root

_SOCKET = re.compile(r"^socket:\[(\d+)\]$")


class Open(NamedTuple):
    """One descriptor of a process."""

    pid: str
    fd: str
    path: str  # as the host calls it


def pids(root: Root) -> list[str]:
    """Return the process ids."""
    return [name for name in root.listdir("/proc") if name.isdigit()]


def open_files(root: Root, wanted: Collection[str]) -> Iterator[Open]:
    """Return who has any of these files open. Root sees all processes; others only their own.

    A container, or whoever made a node with mknod(2), has the same device under another name: it is found by its number.
    """
    nodes = {node: path for path in wanted for node in [root.node(path)] if node is not None}
    for pid in pids(root):
        for fd in root.listdir("/proc", pid, "fd"):
            path = root.readlink("/proc", pid, "fd", fd)
            if path is None or not path.startswith("/"):  # socket:[1], pipe:[2] and the like
                continue
            if path not in wanted:
                node = root.node("/proc", pid, "fd", fd) if nodes else None
                path = nodes.get(node) if node is not None else None
            if path is not None:
                yield Open(pid, fd, path)


def sockets_of(root: Root, name: str) -> dict[str, str]:
    """Return the inodes of the sockets that processes of this name have, each with the process id."""
    found = {}
    for pid in (pid for pid in pids(root) if name_of(root, pid) == name):
        for fd in root.listdir("/proc", pid, "fd"):
            match = _SOCKET.match(root.readlink("/proc", pid, "fd", fd) or "")
            if match:
                found[match.group(1)] = pid
    return found


def name_of(root: Root, pid: str) -> str:
    """Return a process's name."""
    return root.read_text("/proc", pid, "comm") or "?"
