# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running processes and the files that they have open."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from typing import Collection, Iterator, NamedTuple

from .._base.fs import Root

_SOCKET = re.compile(r"^socket:\[(\d+)\]$")
# Numbers of the system calls, the same on every architecture.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438


class Open(NamedTuple):
    """One descriptor of a process."""

    pid: str
    fd: str
    path: str  # as the host calls it


def pids(root: Root) -> list[str]:
    """Return the process ids."""
    return [name for name in root.must_list("/proc") if name.isdigit()]


def open_files(root: Root, wanted: Collection[str]) -> Iterator[Open]:
    """Yield each descriptor that is open on one of these files. Root sees all processes; others only their own.

    In a container, or after mknod(2), the same device has another name; its number identifies it.
    """
    nodes = {node: path for path in wanted for node in [root.node(path)] if node is not None}
    for pid in pids(root):
        for fd in root.must_list("/proc", pid, "fd"):
            path = root.readlink("/proc", pid, "fd", fd)
            if path is None or not path.startswith("/"):  # socket:[1], pipe:[2] and the like
                continue
            if path not in wanted:
                node = root.node("/proc", pid, "fd", fd) if nodes else None
                path = nodes.get(node) if node is not None else None
            if path is not None:
                yield Open(pid, fd, path)


def is_for_writing(root: Root, opened: Open) -> bool:
    """Whether a descriptor can be written to."""
    text = root.read_text("/proc", opened.pid, "fdinfo", opened.fd) or ""
    flags = re.search(r"^flags:\s*([0-7]+)", text, re.MULTILINE)
    return flags is not None and int(flags.group(1), 8) & os.O_ACCMODE != os.O_RDONLY


def sockets_of(root: Root, inodes: Collection[str]) -> Iterator[Open]:
    """Yield each descriptor that is one of these sockets, with the socket's inode for a path."""
    for pid in pids(root):
        for fd in root.must_list("/proc", pid, "fd"):
            match = _SOCKET.match(root.readlink("/proc", pid, "fd", fd) or "")
            if match and match.group(1) in inodes:
                yield Open(pid, fd, match.group(1))


def socket_owners(root: Root, inodes: Collection[str]) -> dict[str, str]:
    """Return which of these sockets processes have open, each with a process id."""
    return {opened.path: opened.pid for opened in sockets_of(root, inodes)}


@contextlib.contextmanager
def borrowed(pid: int, fd: int) -> Iterator[int]:
    """Have a descriptor of another process, which takes Linux 5.6 and the right to trace it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    process = call(libc.syscall(_PIDFD_OPEN, pid, 0))
    try:
        ours = call(libc.syscall(_PIDFD_GETFD, process, fd, 0))
    finally:
        os.close(process)
    try:
        yield ours
    finally:
        os.close(ours)


def name_of(root: Root, pid: str) -> str:
    """Return a process's name."""
    return root.read_text("/proc", pid, "comm") or "?"


def described(root: Root, pid: str) -> str:
    """Return a process as evidence names it."""
    return "process %s (%s)" % (pid, name_of(root, pid))
