# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which programs can be given capabilities, and which never are."""

from __future__ import annotations

import os
import re
import stat
from typing import Iterator

from .._base.errors import HostError
from .._base.fs import Root
from .._host.mounts import MOUNTS, mount_of
from .file_capabilities import State

# Programs that run whatever they are told, or that a host's users cannot do without.
_GENERAL = re.compile(
    r"^(ld(-linux.*)?\.so.*|.*sh|busybox|env|nice|nohup|timeout|xargs|find|tar|[gmn]?awk|vim?|ed|less|more"
    r"|(python|perl|ruby|lua|php|node|tclsh|guile|java)[\d.]*|gdb|strace|ltrace|qemu-.*"
    r"|systemd.*|init|login|su|sudo|sshd|ssh|mount|umount|ip|ansible.*)$"
)
_SERVICE = "Run it as a systemd service and list that under services."


def refusals(root: Root, path: str, now: State | None) -> list[HostError]:
    """Say why a program cannot be given capabilities, or must not be."""
    if now is None or not os.path.isfile(root.path(path)):
        return [
            _refusal("There is no program %s." % path, "%s: no regular file" % path, "Install it, or correct the path.")
        ]
    return [*_against_the_program(root, path, now), *_against_its_place(root, path)]


def _against_the_program(root: Root, path: str, now: State) -> Iterator[HostError]:
    with open(root.path(path), "rb") as handle:
        magic = handle.read(4)
    if magic != b"\x7fELF":
        yield _refusal(
            "%s is no ELF program, and the kernel ignores the capabilities of others." % path,
            "%s: starts with %r" % (path, magic),
            "List the program that a script starts in the end, or: " + _SERVICE,
        )
    if now.uid != 0:
        yield _refusal(
            "%s does not belong to root: its owner could open it to everybody." % path,
            "%s: uid %d" % (path, now.uid),
            "Install it as root's (chown root %s)." % path,
        )
    if now.mode & (stat.S_ISUID | stat.S_ISGID):
        yield _refusal(
            "%s changes its user or group when it is run; capabilities beside that are not given." % path,
            "%s: mode %04o" % (path, now.mode),
            "Take the bit away (chmod ug-s %s)." % path,
        )
    if _GENERAL.match(os.path.basename(path)) or path in _shells(root):
        yield _refusal(
            "%s runs whatever it is told, or others need it: it is never given to one group." % path,
            "%s: a shell, an interpreter, or a tool of the system" % path,
            _SERVICE,
        )


def _against_its_place(root: Root, path: str) -> Iterator[HostError]:
    mount = mount_of(root, path)
    if mount is not None and "nosuid" in mount.options:
        yield _refusal(
            "The kernel ignores the capabilities of %s: its filesystem is mounted nosuid." % path,
            "%s: %s is mounted %s" % (MOUNTS, mount.target, ",".join(mount.options)),
            "Install it on another filesystem, or: " + _SERVICE,
        )
    if "no_file_caps" in (root.read_text("/proc/cmdline") or "").split():
        yield _refusal(
            "This kernel ignores the capabilities of files.",
            "/proc/cmdline: no_file_caps",
            "Boot without no_file_caps, or: " + _SERVICE,
        )


def _refusal(message: str, evidence: str, remedy: str) -> HostError:
    return HostError("binary", message, [evidence], remedy)


def _shells(root: Root) -> set[str]:
    """Return the login shells, by the names that they have and the files that they are."""
    lines = (root.read_text("/etc/shells") or "").splitlines()
    users = (root.read_text("/etc/passwd") or "").splitlines()
    named = {line.strip() for line in lines if line.startswith("/")}
    named |= {line.rsplit(":", 1)[1] for line in users if line.count(":") == 6}
    return named | {root.realpath(name) for name in named if name}
