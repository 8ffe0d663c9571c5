# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which programs can be granted capabilities, and which never are."""

from __future__ import annotations

import os
import re
import stat
from typing import Iterator

from .._base.errors import HostError
from .._base.fs import Root
from .._host import executables
from .._host.mounts import MOUNTS, mount_of
from .._host.packages import base_package
from .file_capabilities import Found
from .profiles import Application

# Programs that run any command they are given. Some of them use VFIO as well.
_GENERAL = re.compile(
    r"^(ld(-linux.*)?\.so.*|.*sh|busybox|env|nice|nohup|timeout|xargs|find|tar|[gmn]?awk|vim?|ed|less|more"
    r"|(python|perl|ruby|lua|php|node|tclsh|guile|java)[\d.]*|gdb|strace|ltrace|qemu-.*"
    r"|systemd.*|virsh|virt-.*|init|login|su|sudo|sshd|ssh|mount|umount|ip|ansible.*)$"
)
_SERVICE = "Run it as a systemd service and list that under services."


def refusals(root: Root, application: Application, found: Found | None) -> list[HostError]:
    """Return every reason why a program cannot be given capabilities, or must not be."""
    path = application.name
    if found is None or not os.path.isfile(root.path(path)):
        return [
            _refusal("There is no program %s." % path, "%s: no regular file" % path, "Install it, or correct the path.")
        ]
    return [
        *_against_the_file(root, path, found),
        *_against_the_program(root, path, application.profile),
        *_against_its_place(root, path),
    ]


def _against_the_file(root: Root, path: str, found: Found) -> Iterator[HostError]:
    state = found.state
    if state.uid != 0:
        yield _refusal(
            "%s does not belong to root: its owner could open it to everybody." % path,
            "%s: uid %d" % (path, state.uid),
            "Install it as root's (chown root %s)." % path,
        )
    if state.mode & (stat.S_ISUID | stat.S_ISGID):
        yield _refusal(
            "%s changes its user or group when it is run (setuid, setgid); it is not granted capabilities as well."
            % path,
            "%s: mode %04o" % (path, state.mode),
            "Remove the bit (chmod ug-s %s)." % path,
        )
    if found.links > 1:
        yield _refusal(
            "%s has another name, by which it would have the capabilities as well." % path,
            "%s: %d hard links (find / -xdev -inum %d)" % (path, found.links, found.inode),
            "Install the program as a file of its own (cp %s %s.new && mv %s.new %s)." % ((path,) * 4),
        )
    yield from replaceable(root, path, {0}, "binary")


def replaceable(root: Root, path: str, trusted: set[int], code: str) -> Iterator[HostError]:
    """Refuse a program that somebody other than root can replace."""
    folder = path
    while folder != "/":
        folder = os.path.dirname(folder)
        about = os.stat(root.path(folder))
        if about.st_uid not in trusted or about.st_mode & 0o022:
            yield HostError(
                code,
                "Somebody other than root can replace %s." % path,
                evidence=["%s: uid %d, mode %04o" % (folder, about.st_uid, stat.S_IMODE(about.st_mode))],
                remedy="Install it where only root can write, such as /usr/local/bin.",
            )


def _against_the_program(root: Root, path: str, profile: str) -> Iterator[HostError]:
    content = root.read_bytes(path) or b""
    if not content.startswith(executables.ELF):
        yield _refusal(
            "%s is not an ELF program, and the kernel ignores capabilities on anything else." % path,
            "%s: starts with %r" % (path, content[:4]),
            "List the program that a script starts in the end, or: " + _SERVICE,
        )
        return
    if _GENERAL.match(os.path.basename(path)) or path in _shells(root):
        yield _refusal(
            "%s runs any command it is given, or others need it: it is never restricted to one group." % path,
            "%s: a shell, an interpreter, or a tool of the system" % path,
            _SERVICE,
        )
        return
    if executables.uses_vfio(root, path):
        return
    package = base_package(root, path)
    if package is not None:
        yield _refusal(
            "%s is part of the system: it is never restricted to one group." % path,
            "%s: of the package %s" % (path, package),
            "List the data plane application itself.",
        )
    elif profile != "custom":
        yield _refusal(
            "%s is not a data plane application." % path,
            "%s: neither it nor a library that it is linked with names /dev/vfio" % path,
            "List the application itself. One that drives no device through VFIO gets what it needs by the profile"
            " custom.",
        )
    elif executables.starts_programs(root, path):
        yield _refusal(
            "%s is not a data plane application, and the programs that it starts would not have its capabilities."
            % path,
            "%s: calls exec, posix_spawn, system, popen or forkpty; it does not name /dev/vfio" % path,
            "List the application that it is to start, or: " + _SERVICE,
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
    """Return the login shells, by their names and by their files."""
    lines = (root.read_text("/etc/shells") or "").splitlines()
    users = (root.read_text("/etc/passwd") or "").splitlines()
    named = {line.strip() for line in lines if line.startswith("/")}
    named |= {line.rsplit(":", 1)[1] for line in users if line.count(":") == 6}
    return named | {root.realpath(name) for name in named if name}
