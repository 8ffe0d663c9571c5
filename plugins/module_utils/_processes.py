# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running processes and the files that they have open."""

from __future__ import annotations

from typing import Container, Iterator, NamedTuple

from ._fs import Root


class Open(NamedTuple):
    """One descriptor of a process."""

    pid: str
    fd: str
    path: str


def pids(root: Root) -> list[str]:
    """Return the process ids."""
    return [name for name in root.listdir("/proc") if name.isdigit()]


def open_files(root: Root, wanted: Container[str]) -> Iterator[Open]:
    """Return who has any of these paths open. Root sees all processes; others only their own."""
    for pid in pids(root):
        for fd in root.listdir("/proc", pid, "fd"):
            path = root.readlink("/proc", pid, "fd", fd)
            if path is not None and path in wanted:
                yield Open(pid, fd, path)


def name_of(root: Root, pid: str) -> str:
    """Return a process's name."""
    return root.read_text("/proc", pid, "comm") or "?"
