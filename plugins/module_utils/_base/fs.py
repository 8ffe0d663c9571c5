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
from typing import Callable, TypeVar

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
                # Thousands of attributes are read in a run: without the layers of open(), in half the time.
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

        For what a guard depends on: an unreadable file taken for an empty one would take the device away.
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
            "What this host uses its devices for cannot be told: %s cannot be read." % path,
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
        """Return the host path that a link of sysfs leads to. Such links lead to where no other link is on the way."""
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
        # Another root's links lead into the host that this runs on.
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
            shown = value.strip() or "an empty line"
            raise HostError(
                "kernel_write",
                "The kernel refused %s written to %s: %s." % (shown, path, errno_text(exc)),
                evidence=["%s <- %r: %s" % (path, value, errno_text(exc))],
                remedy="Look at the last lines of `dmesg` for the driver's reason.",
                errno=exc.errno,
            ) from exc

    def write_file(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Replace a file atomically and durably: a crash leaves the old one or the new one, a power cut after the call
        the new one. Missing directories are made.

        A new file has no name until it is whole. One that replaces another has a second name for a moment, which the
        next call that writes or removes it takes away; so an unchanged file is not written again.
        """
        real = self.path(path)
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        if _holds(real, data, mode):
            return
        try:
            self.make_dirs(os.path.dirname(path))
            nameless = _open_nameless(os.path.dirname(real))
            with os.fdopen(nameless or _open_second(real), "wb") as stream:
                stream.write(data)
                os.fchmod(stream.fileno(), mode)
                stream.flush()
                os.fsync(stream.fileno())
                if nameless:
                    # A directory descriptor, which an absolute path does not need, makes Python follow the link.
                    _put_in_place(lambda name: os.link("/proc/self/fd/%d" % nameless, name, src_dir_fd=nameless), real)
                else:
                    os.rename(_second_name(real), real)
            _sync_directory(os.path.dirname(real))
        except OSError as exc:
            _unlink_quietly(_second_name(real))
            raise _file_error("write", path, exc) from exc

    def make_dirs(self, path: str) -> None:
        """Make a directory and what is missing above it, durably, or raise OSError.

        They are made as 0755 whatever the umask: the files restrict access themselves. A mode that is only corrected
        afterwards would stay wrong for ever if the run was killed in between.
        """
        real, missing = self.path(path), []
        while real not in ("", "/") and not os.path.isdir(real):
            missing.append(real)
            real = os.path.dirname(real)
        if not missing:
            return
        before = os.umask(0o022)
        try:
            os.makedirs(missing[0], exist_ok=True)
        finally:
            os.umask(before)
        for made in missing:
            _sync_directory(os.path.dirname(made))

    def rename(self, path: str, new: str) -> None:
        """Rename a file or a directory durably, or raise OSError."""
        os.rename(self.path(path), self.path(new))
        for folder in {os.path.dirname(self.path(path)), os.path.dirname(self.path(new))}:
            _sync_directory(folder)

    def sync(self, path: str) -> None:
        """Have a file that another program wrote survive a power cut, its name included."""
        _sync_file(self.path(path))
        _sync_directory(os.path.dirname(self.path(path)))

    def try_writing(self, path: str) -> None:
        """Raise OSError where no file can be made in a directory. Modes do not tell: it may be mounted read-only."""
        probe = self.path(path, "probe")
        os.close(_open_nameless(self.path(path)) or _open_second(probe))
        _unlink_quietly(_second_name(probe))

    def write_link(self, path: str, target: str) -> None:
        """Make or replace a symbolic link atomically and durably."""
        real = self.path(path)
        try:
            self.make_dirs(os.path.dirname(path))
            _put_in_place(lambda name: os.symlink(target, name), real)
            _sync_directory(os.path.dirname(real))
        except OSError as exc:
            _unlink_quietly(_second_name(real))
            raise _file_error("write the symbolic link", path, exc) from exc

    def remove_file(self, path: str) -> bool:
        """Remove a file or symbolic link durably; say whether there was one."""
        self.remove_second(path)
        if not self.exists(path):
            return False
        try:
            os.unlink(self.path(path))
            _sync_directory(os.path.dirname(self.path(path)))
        except FileNotFoundError:  # somebody else was faster
            return False
        except OSError as exc:
            raise _file_error("remove", path, exc) from exc
        return True

    def remove_second(self, path: str) -> None:
        """Remove the second name of a file, if a run that was killed left it."""
        _unlink_quietly(_second_name(self.path(path)))

    def remove_empty_dir(self, path: str) -> bool:
        """Remove a directory durably if it is empty; say whether it was removed."""
        # A read-only filesystem refuses before it looks whether there is anything to remove.
        if not os.path.isdir(self.path(path)) or os.path.islink(self.path(path)):
            return False
        try:
            os.rmdir(self.path(path))
            _sync_directory(os.path.dirname(self.path(path)))
        except OSError as exc:
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):  # the last: something is mounted on it
                return False
            raise _file_error("remove the empty directory", path, exc) from exc
        return True


@lru_cache(maxsize=None)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _statx(path: str, wanted: int) -> bytes | None:
    # Not os.stat: it would wait for the servers of network filesystems, those that are gone as well.
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


def _second_name(real: str) -> str:
    """Return the one other name that a file ever has. Whoever reads a directory goes by the suffix, hidden or not."""
    return os.path.join(os.path.dirname(real), ".%s.noiommu-new" % os.path.basename(real))


def _holds(real: str, data: bytes, mode: int) -> bool:
    """Whether there is such a file with that content already."""
    try:
        about = os.lstat(real)
        if not stat.S_ISREG(about.st_mode) or stat.S_IMODE(about.st_mode) != mode or about.st_size != len(data):
            return False
        with open(real, "rb") as stream:
            return stream.read() == data
    except OSError:
        return False


def _open_nameless(folder: str) -> int | None:
    """Open a file that is gone if nobody names it; None where the filesystem or the kernel has no such thing."""
    if not hasattr(os, "O_TMPFILE"):  # a control node that writes a report need not run Linux
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            return None
        raise


def _open_second(real: str) -> int:
    name = _second_name(real)
    _unlink_quietly(name)
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)


def _put_in_place(make: Callable[[str], None], real: str) -> None:
    """Make it under its name, or under its second name first where something is there already."""
    try:
        make(real)
    except FileExistsError:
        second = _second_name(real)
        _unlink_quietly(second)
        make(second)
        os.rename(second, real)


def _sync_file(real: str) -> None:
    handle = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_directory(real: str) -> None:
    """Have the names in a directory survive a power cut: a file's own fsync does not cover its name."""
    try:
        _sync_file(real)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOENT):  # cannot sync directories; or somebody removed it
            raise


def _unlink_quietly(real: str) -> None:
    try:
        os.unlink(real)
    except OSError:
        pass


_FILE_REMEDIES = {
    errno.ENOSPC: "Free space on the filesystem that holds it, then run again.",
    errno.EROFS: "The filesystem is mounted read-only: remount it read-write, then run again.",
    errno.EACCES: "Run with become: true.",
    errno.EPERM: "Run with become: true; if it was root, look for an immutable flag (lsattr) or a security policy.",
}


def _file_error(verb: str, path: str, exc: OSError) -> HostError:
    return HostError(
        "file",
        "Could not %s %s: %s." % (verb, path, errno_text(exc)),
        evidence=["%s: %s" % (path, errno_text(exc))],
        remedy=_FILE_REMEDIES.get(exc.errno or 0, "Make the path usable for root, then run again."),
        errno=exc.errno,
    )
