# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Access to the host's files below one filesystem root.

Everything else in this collection takes a :class:`Root`, so that unit tests can put a directory tree in its place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from functools import lru_cache
from typing import TypeVar

from .errors import HostError, errno_text

_PIECE = 1 << 16
# struct statx of linux/stat.h: where stx_mode, stx_ino, stx_rdev_major and stx_dev_major are.
_STATX_SIZE, _STATX_MODE, _STATX_INODE, _STATX_RDEV, _STATX_DEV = 256, 28, 32, 128, 136
# A process that has ended, a device that was removed.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESRCH, errno.ENODEV, errno.ENXIO)
_Nothing = TypeVar("_Nothing", str, "list[str]")
_AT_FDCWD, _AT_STATX_DONT_SYNC, _STATX_TYPE, _STATX_INO = -100, 0x4000, 0x1, 0x100


class Root:
    """Paths are given as on the host (``/sys/...``) and resolved below ``path``."""

    def __init__(self, path: str = "/") -> None:
        self._base = os.path.realpath(path)
        self._live = self._base == "/"

    @property
    def is_live(self) -> bool:
        """Whether this is the running host: only then do sockets and ioctls make sense."""
        return self._live

    def path(self, *parts: str) -> str:
        """Return the real path of a host path given in one or several parts."""
        joined = "/".join(parts)
        return joined if self._live else self._base + "/" + joined.lstrip("/")

    def _host_path(self, real: str) -> str:
        if self.is_live or not real.startswith(self._base + "/"):
            return real
        return real[len(self._base) :]

    # --- reading: absence is an answer, never an exception ---

    def read_bytes(self, *parts: str) -> bytes | None:
        """Return a file's content, or None if it cannot be read."""
        try:
            handle = os.open(self.path(*parts), os.O_RDONLY | os.O_CLOEXEC)
            try:
                # A run reads thousands of attributes; this takes half the time of open().
                pieces = [os.read(handle, _PIECE)]
                while pieces[-1]:
                    pieces.append(os.read(handle, _PIECE))
                return b"".join(pieces)
            finally:
                os.close(handle)
        except OSError:
            return None

    def read_at(self, path: str, offset: int, size: int) -> bytes | None:
        """Return a piece of a file, or None if it cannot be read."""
        try:
            handle = os.open(self.path(path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(handle, size, offset)
            finally:
                os.close(handle)
        except OSError:
            return None

    def read_text(self, *parts: str) -> str | None:
        """Return a file's stripped text, or None if it cannot be read."""
        data = self.read_bytes(*parts)
        return None if data is None else data.decode("utf-8", "replace").strip()

    def must_read(self, *parts: str) -> str:
        """Return a file's stripped text; nothing if there is no such file, an error if root cannot read it.

        For what a guard depends on: if an unreadable file counted as empty, the guard would let its device be bound.
        """
        try:
            with open(self.path(*parts), "rb") as stream:
                return stream.read().decode("utf-8", "replace").strip()
        except OSError as exc:
            return self._unless_unreadable("", exc, *parts)

    def must_list(self, *parts: str) -> list[str]:
        """Return the sorted names in a directory; nothing if there is none, an error if root cannot read it."""
        try:
            return sorted(os.listdir(self.path(*parts)))
        except OSError as exc:
            return self._unless_unreadable([], exc, *parts)

    def _unless_unreadable(self, nothing: _Nothing, exc: OSError, *parts: str) -> _Nothing:
        # Without privileges nothing is changed, and much cannot be read.
        if exc.errno in _GONE or os.geteuid() != 0:
            return nothing
        path = "/".join(parts)
        raise HostError(
            "unreadable",
            "Cannot tell what this host uses its devices for: %s cannot be read." % path,
            evidence=["%s: %s" % (path, errno_text(exc))],
            remedy="Run as root on the host itself, not in a container or a sandbox; then look for what forbids it to"
            " read that file (a security policy, hidepid, too many open files).",
            errno=exc.errno,
        ) from exc

    def read_int(self, *parts: str) -> int | None:
        """Return a number written in decimal or 0x notation, or None."""
        text = self.read_text(*parts)
        try:
            return None if text is None else int(text, 0)
        except ValueError:
            return None

    def readlink(self, *parts: str) -> str | None:
        """Return what a symbolic link points to, or None."""
        try:
            return os.readlink(self.path(*parts))
        except OSError:
            return None

    def link_name(self, *parts: str) -> str | None:
        """Return the last component of what a symbolic link points to, or None."""
        target = self.readlink(*parts)
        return None if target is None else os.path.basename(target)

    def realpath(self, *parts: str) -> str:
        """Return the host path with every symbolic link resolved."""
        return self._host_path(os.path.realpath(self.path(*parts)))

    def target(self, *parts: str) -> str:
        """Return the host path that a sysfs link points to; such a path has no other links in it."""
        path = self.path(*parts)
        try:
            # Resolving each part of the path would take ten system calls instead of one.
            return self._host_path(os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path))))
        except OSError:
            return self._host_path(path)

    def listdir(self, *parts: str) -> list[str]:
        """Return the sorted names in a directory; nothing if there is none."""
        try:
            return sorted(os.listdir(self.path(*parts)))
        except OSError:
            return []

    def exists(self, *parts: str) -> bool:
        """Whether the path exists, a dangling symbolic link included."""
        return os.path.lexists(self.path(*parts))

    def node(self, *parts: str) -> tuple[str, str] | None:
        """Return what device a file is, as ("b" or "c", "major:minor"); None for others, and off the running host."""
        # Links below another root point into the host that the tests run on.
        return _device_node(self.path(*parts)) if self.is_live else None

    def file_id(self, *parts: str) -> tuple[str, int] | None:
        """Return a file's filesystem and inode; None if there is no such file, and off the running host."""
        answer = _statx(self.path(*parts), _STATX_INO) if self.is_live else None
        if answer is None:
            return None
        major, minor = struct.unpack_from("=II", answer, _STATX_DEV)
        return "%d:%d" % (major, minor), struct.unpack_from("=Q", answer, _STATX_INODE)[0]

    # --- writing ---

    def write_sysfs(self, path: str, value: str) -> None:
        """Write one value to a kernel attribute in a single write(2)."""
        try:
            handle = os.open(self.path(path), os.O_WRONLY)
            try:
                os.write(handle, value.encode())
            finally:
                os.close(handle)
        except OSError as exc:
            raise refused_write(path, value, exc) from exc

    # Imported only where something is written: most runs only read.

    def write_file(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Replace a file atomically and durably; missing directories are made."""
        from . import durable

        durable.write_file(self.path(path), path, text, mode)

    def make_dirs(self, path: str) -> None:
        """Create a directory and its missing parents as 0755, durably, or raise OSError."""
        from . import durable

        durable.make_dirs(self.path(path))

    def rename(self, path: str, new: str) -> None:
        """Rename a file or a directory durably, or raise OSError."""
        from . import durable

        durable.rename(self.path(path), self.path(new))

    def sync(self, path: str) -> None:
        """Sync a file that another program wrote, and its name."""
        from . import durable

        durable.sync(self.path(path))

    def try_writing(self, path: str) -> None:
        """Raise OSError if no file can be created in a directory. It may be mounted read-only."""
        from . import durable

        durable.try_writing(self.path(path))

    def write_link(self, path: str, target: str) -> None:
        """Make or replace a symbolic link atomically and durably."""
        from . import durable

        durable.write_link(self.path(path), path, target)

    def remove_file(self, path: str) -> bool:
        """Remove a file or symbolic link durably; say whether there was one."""
        from . import durable

        return durable.remove_file(self.path(path), path)

    def remove_second(self, path: str) -> None:
        """Remove the second name of a file, if a run that was killed left it."""
        from . import durable

        durable.remove_second(self.path(path))

    def remove_empty_dir(self, path: str) -> bool:
        """Remove a directory durably if it is empty; say whether it was removed."""
        from . import durable

        return durable.remove_empty_dir(self.path(path), path)


def refused_write(path: str, value: str, exc: OSError) -> HostError:
    """Return the error for a value that the kernel did not take."""
    shown = value.strip() or "an empty line"
    return HostError(
        "kernel_write",
        "The kernel refused %s written to %s: %s." % (shown, path, errno_text(exc)),
        evidence=["%s <- %r: %s" % (path, value, errno_text(exc))],
        remedy="Look at the last lines of `dmesg` for the driver's reason.",
        errno=exc.errno,
    )


@lru_cache(maxsize=None)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _statx(path: str, wanted: int) -> bytes | None:
    # Not os.stat, which waits for the server of a network filesystem, even one that is gone.
    answer = ctypes.create_string_buffer(_STATX_SIZE)
    done = _libc().statx(_AT_FDCWD, os.fsencode(path), _AT_STATX_DONT_SYNC, wanted, answer)
    return answer.raw if done == 0 else None


def _device_node(path: str) -> tuple[str, str] | None:
    answer = _statx(path, _STATX_TYPE)
    if answer is None:
        return None
    mode = struct.unpack_from("=H", answer, _STATX_MODE)[0]
    kind = "b" if stat.S_ISBLK(mode) else "c" if stat.S_ISCHR(mode) else None
    return (kind, "%d:%d" % struct.unpack_from("=II", answer, _STATX_RDEV)) if kind else None
