# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write, rename and remove files so that the result survives a power cut.

A directory is synced after each change to the names in it; a file's own fsync does not cover its name. Functions take
the real path, and the path on the host for messages.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable

from . import labels
from .errors import HostError, errno_text


def write_file(real: str, path: str, text: str | bytes, mode: int) -> None:
    """Replace a file: a crash leaves the old one or the new one, a power cut after the call the new one.

    A new file has no name until it is complete. A file that replaces another briefly has a second name; if a crash
    leaves that behind, the next call for the file removes it. An unchanged file is not written again.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    if _holds(real, data, mode):
        return
    try:
        make_dirs(os.path.dirname(real))
        nameless = _open_nameless(os.path.dirname(real))
        with os.fdopen(nameless or _open_second(real), "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), mode)
            labels.apply(stream.fileno(), real, stat.S_IFREG)
            stream.flush()
            os.fsync(stream.fileno())
            if nameless:
                # A directory descriptor, which an absolute path does not need, makes Python follow the link.
                _put_in_place(lambda name: os.link("/proc/self/fd/%d" % nameless, name, src_dir_fd=nameless), real)
            else:
                os.rename(_second_name(real), real)
        _sync_directory(os.path.dirname(real))
    except OSError as exc:
        remove_second(real)
        raise _file_error("write", path, exc) from exc


def make_dirs(real: str) -> None:
    """Create a directory and its missing parents, or raise OSError.

    They are 0755 whatever the umask: the files restrict access themselves. A mode that is only corrected afterwards
    would stay wrong if the run was killed in between.
    """
    missing, above = [], real
    while above not in ("", "/") and not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    if not missing:
        return
    before = os.umask(0o022)
    try:
        os.makedirs(real, exist_ok=True)
    finally:
        os.umask(before)
    for made in reversed(missing):
        labels.apply(made, made, stat.S_IFDIR)
        _sync_directory(os.path.dirname(made))


def rename(real: str, new: str) -> None:
    """Rename a file or a directory, or raise OSError."""
    os.rename(real, new)
    for folder in sorted({os.path.dirname(real), os.path.dirname(new)}):
        _sync_directory(folder)


def sync(real: str) -> None:
    """Sync a file that another program wrote, and its name."""
    _sync(real)
    _sync_directory(os.path.dirname(real))


def try_writing(folder: str) -> None:
    """Raise OSError if no file can be created in a directory."""
    probe = os.path.join(folder, "probe")
    os.close(_open_nameless(folder) or _open_second(probe))
    remove_second(probe)


def write_link(real: str, path: str, target: str) -> None:
    """Make or replace a symbolic link."""
    try:
        make_dirs(os.path.dirname(real))
        _put_in_place(lambda name: _make_link(target, name, real), real)
        _sync_directory(os.path.dirname(real))
    except OSError as exc:
        remove_second(real)
        raise _file_error("write the symbolic link", path, exc) from exc


def remove_file(real: str, path: str) -> bool:
    """Remove a file or symbolic link; say whether there was one."""
    remove_second(real)
    if not os.path.lexists(real):
        return False
    try:
        os.unlink(real)
        _sync_directory(os.path.dirname(real))
    except FileNotFoundError:  # somebody else removed it first
        return False
    except OSError as exc:
        raise _file_error("remove", path, exc) from exc
    return True


def remove_empty_dir(real: str, path: str) -> bool:
    """Remove a directory if it is empty; say whether it was removed."""
    # A read-only filesystem refuses even where there is nothing to remove.
    if not os.path.isdir(real) or os.path.islink(real):
        return False
    try:
        os.rmdir(real)
        _sync_directory(os.path.dirname(real))
    except OSError as exc:
        if exc.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):  # EBUSY: something is mounted on it
            return False
        raise _file_error("remove the empty directory", path, exc) from exc
    return True


def remove_second(real: str) -> None:
    """Remove the second name of a file, if a run that was killed left it."""
    _unlink_quietly(_second_name(real))


def _second_name(real: str) -> str:
    """Return the only other name that a file ever has: by its suffix, programs that read the directory skip it."""
    return os.path.join(os.path.dirname(real), ".%s.noiommu-new" % os.path.basename(real))


def _holds(real: str, data: bytes, mode: int) -> bool:
    """Whether the file already has that content and mode."""
    try:
        about = os.lstat(real)
        if not stat.S_ISREG(about.st_mode) or stat.S_IMODE(about.st_mode) != mode or about.st_size != len(data):
            return False
        with open(real, "rb") as stream:
            return stream.read() == data
    except OSError:
        return False


def _open_nameless(folder: str) -> int | None:
    """Open a file that has no name yet; None if the filesystem or the kernel does not support that."""
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


def _make_link(target: str, name: str, real: str) -> None:
    os.symlink(target, name)
    labels.apply(name, real, stat.S_IFLNK)


def _put_in_place(make: Callable[[str], None], real: str) -> None:
    """Create it under its name; if that is taken, under its second name, and rename it."""
    try:
        make(real)
    except FileExistsError:
        second = _second_name(real)
        _unlink_quietly(second)
        make(second)
        os.rename(second, real)


def _sync(real: str) -> None:
    handle = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_directory(real: str) -> None:
    """Sync the names in a directory: a file's own fsync does not cover its name."""
    try:
        _sync(real)
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
