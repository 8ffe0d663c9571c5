# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capabilities on a program's file: granted so that only one group can run it, and revoked to the earlier state.

On a host without an IOMMU these capabilities amount to root. A program that has them therefore belongs to root and can
be executed by the named group alone. Its mode is narrowed before the capabilities are set, and widened only after they
are gone.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host import capabilities

XATTR = "security.capability"

# struct vfs_cap_data of include/uapi/linux/capability.h
_REVISION_MASK, _REVISION_2, _REVISION_3, _EFFECTIVE = 0xFF000000, 0x02000000, 0x03000000, 0x000001


class State(NamedTuple):
    """Who may run a program, and with which capabilities (the attribute in hexadecimal)."""

    uid: int
    gid: int | None  # None: of a group that is still to be created
    mode: int
    capabilities: str | None


class Found(NamedTuple):
    """A program's file."""

    inode: int
    links: int
    state: State


class Recorded(NamedTuple):
    """A program's file before it got capabilities, and after."""

    inode: int
    before: State
    mode: int
    capabilities: str


def encode(bits: int) -> str:
    """Return the attribute that makes capabilities permitted and effective."""
    low, high = bits & 0xFFFFFFFF, bits >> 32
    return struct.pack("<IIIII", _REVISION_2 | _EFFECTIVE, low, 0, high, 0).hex()


def permitted(value: str | None, path: str) -> int:
    """Return the permitted capabilities in an attribute."""
    if value is None:
        return 0
    try:
        data = bytes.fromhex(value)
    except ValueError:
        data = b""
    if len(data) >= 20 and struct.unpack_from("<I", data)[0] & _REVISION_MASK in (_REVISION_2, _REVISION_3):
        _magic, low, _inheritable, high = struct.unpack_from("<IIII", data)
        return int(low | high << 32)
    raise HostError(
        "file_capabilities",
        "The capabilities of %s are of a kind that this version does not know." % path,
        evidence=["%s: %s is %s" % (path, XATTR, value)],
        remedy="Remove them (setcap -r %s) if they are not needed, then run again." % path,
    )


def show(state: State, path: str) -> dict[str, Any]:
    """Return a state as it is reported."""
    return {
        "uid": state.uid,
        "gid": state.gid,
        "mode": "%04o" % state.mode,
        "capabilities": capabilities.names(permitted(state.capabilities, path)),
    }


def look(root: Root, path: str) -> Found | None:
    """Return a program's file, None if it is not there."""
    try:
        about = os.stat(root.path(path))
    except OSError:
        return None
    state = State(about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode), _attribute(root, path))
    return Found(about.st_ino, about.st_nlink, state)


def _attribute(root: Root, path: str) -> str | None:
    try:
        return os.getxattr(root.path(path), XATTR).hex()
    except OSError as exc:
        if exc.errno in (errno.ENODATA, errno.ENOENT):
            return None
        raise HostError(
            "file_capabilities",
            "%s cannot have capabilities." % path,
            evidence=["%s: reading %s: %s" % (path, XATTR, exc.strerror)],
            remedy="Its filesystem stores no extended attributes (or needs root to read them): install the program on"
            " another one, or run it as a systemd service and list that under services.",
        ) from exc


def granted(now: State, gid: int | None, bits: int, path: str) -> State:
    """Return a program's state once it has capabilities besides those that it had."""
    # The owner keeps its rights, the group may read and execute, others may do nothing.
    mode = now.mode & 0o700 | 0o050
    return State(0, gid, mode, encode(bits | permitted(now.capabilities, path)))


def revoked(now: State, record: Recorded, gid: int | None) -> tuple[State, str | None]:
    """Return a program's state once the grant is revoked, and a note if it is not as it was granted.

    Whatever differs from the grant was changed by somebody else and stays: after a package upgrade, for example, the
    file is a new one that never had the grant.
    """
    granted_only = now.capabilities == record.capabilities
    owner = now[:3]
    if (now.gid, now.mode) == (gid, record.mode):
        owner = record.before[:3]
    back = State(*owner, record.before.capabilities if granted_only else now.capabilities)
    if back == record.before:
        return back, None
    if now.capabilities is None:
        return back, "was replaced since it got its capabilities, as a package upgrade does: left as it is"
    return back, "was changed by somebody since it got its capabilities: only what is still as granted was revoked"


def apply(root: Root, path: str, found: Found, want: State) -> None:
    """Bring a program's file to a state. At no moment does anybody who may execute it have more than before or after.

    It has to be the file that was found: what was checked holds for no other.
    """
    now = found.state
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(root.path(path), flags)
        try:
            about = os.fstat(handle)
            inode, links = about.st_ino, about.st_nlink
            if (inode, links) != (found.inode, found.links):
                raise HostError(
                    "file_capabilities",
                    "%s was replaced, or got another name, during the run." % path,
                    evidence=["%s: inode %d (%d links), was %d (%d)" % (path, inode, links, found.inode, found.links)],
                    remedy="Wait until the installation that replaces it has ended, then run again.",
                )
            if now.capabilities is not None and now != want:
                # A change of owner would remove it anyway.
                os.removexattr(handle, XATTR)
            if now[:2] != want[:2]:
                os.fchown(handle, want.uid, -1 if want.gid is None else want.gid)
            if now[:3] != want[:3]:
                os.fchmod(handle, want.mode)
            if want.capabilities is not None and now != want:
                os.setxattr(handle, XATTR, bytes.fromhex(want.capabilities))
        finally:
            os.close(handle)
    except OSError as exc:
        raise HostError(
            "file_capabilities",
            "The capabilities of %s could not be set: %s." % (path, exc.strerror),
            evidence=["%s: %s" % (path, exc.strerror)],
            remedy="Run with become: true, outside of containers, and on a filesystem that is mounted read-write.",
            errno=exc.errno,
        ) from exc
