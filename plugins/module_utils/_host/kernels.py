# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installed kernels, their configuration and headers, and what building a module for them needs."""

from __future__ import annotations

import re
from typing import NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .kernel_config import running_config

MODULES = "/lib/modules"
# What `uname -r` prints on every distribution. A release becomes part of paths, package names and arguments. The kernel
# itself has 64 characters for it; apt-get removes a package whose name ends in a hyphen.
_RELEASE = re.compile(r"[0-9](?:[A-Za-z0-9.+~_-]{0,62}[A-Za-z0-9+])?\Z")
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}\Z")
_COMPILER = re.compile(r"(?:\w+-)*(?:gcc|clang|cc)(?:-[0-9.]+)?\Z")
BIN_DIRS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Os(NamedTuple):
    """The distribution, and the family whose package names it uses."""

    id: str
    version_id: str
    family: str  # debian | redhat | unknown


def is_release(name: object) -> bool:
    """Whether something can be the release of a kernel."""
    return isinstance(name, str) and _RELEASE.match(name) is not None and ".." not in name


def require_release(name: object, where: str) -> None:
    """Refuse what cannot be a kernel's release; for every release that comes from outside."""
    if not is_release(name):
        raise HostError(
            "kernel_release",
            "This is not a kernel release.",
            evidence=["%s: %.100r" % (where, name)],
            remedy="A release is what `uname -r` prints, as 6.1.0-57-amd64: a digit first, then letters, digits and"
            " .+~_- only, without two dots in a row. If a host answered it, find out who controls that host.",
        )


def running(root: Root) -> str:
    """Return the running kernel's release."""
    release = root.read_text("/proc/sys/kernel/osrelease")
    if not release:
        raise HostError(
            "kernel",
            "The running kernel's release could not be read.",
            evidence=["/proc/sys/kernel/osrelease: not readable"],
            remedy="Run on the host itself, with /proc mounted.",
        )
    return release


def installed(root: Root) -> list[str]:
    """Return the releases that can be booted, oldest first; a directory with headers alone is not one."""
    found = {
        release
        for release in root.listdir(MODULES)
        if root.exists(MODULES, release, "kernel") or root.exists("/boot/vmlinuz-" + release)
    }
    return sorted(found, key=version_key)


def version_key(release: str) -> list[tuple[int, str]]:
    """Return a sort key that orders releases by their numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[a-z]+", release)]


def headers(root: Root, release: str) -> str | None:
    """Return the directory of a kernel's headers, if they are installed."""
    path = root.realpath(MODULES, release, "build")
    return path if root.exists(path, "Makefile") else None


def read_config(root: Root, release: str) -> dict[str, str] | None:
    """Return a kernel's configuration; None if the host does not have it. What is not set is absent."""
    text = root.read_text("/boot/config-" + release) or root.read_text(MODULES, release, "config")
    if not text and release == running(root):
        text = running_config(root)
    if not text:
        directory = headers(root, release)
        text = root.read_text(directory, ".config") if directory else None
    if not text:
        return None
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


def find_program(root: Root, name: str) -> str | None:
    """Return the path of a program, without running anything."""
    return next((path for path in ("%s/%s" % (folder, name) for folder in BIN_DIRS) if root.exists(path)), None)


def compiler(root: Root, release: str) -> str | None:
    """Return the compiler for a kernel's modules: the one the kernel was built with, else the usual one.

    It is run as root, so a kernel's configuration may name one of the system's compilers and nothing else.
    """
    built_with = (read_config(root, release) or {}).get("CONFIG_CC_VERSION_TEXT", "").strip('"').split(" ")[0]
    if built_with and not _PROGRAM.match(built_with):
        raise HostError(
            "compiler_name",
            "The configuration of the kernel %s does not name its compiler by a plain file name." % release,
            evidence=["CONFIG_CC_VERSION_TEXT: %.100r" % built_with],
            remedy="Find out who wrote that configuration (/boot/config-%s, or .config of its headers); reinstall the"
            " package it belongs to." % release,
        )
    names = [built_with] if _COMPILER.match(built_with) else []
    return next(filter(None, (find_program(root, name) for name in [*names, "gcc", "cc"])), None)


def read_os(root: Root) -> Os:
    """Return what /etc/os-release says."""
    text = root.read_text("/etc/os-release") or root.read_text("/usr/lib/os-release") or ""
    fields = {key: value.strip("\"'") for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)}
    kin = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    family = "unknown"
    if "debian" in kin or "ubuntu" in kin:
        family = "debian"
    elif {"rhel", "fedora", "centos"} & set(kin):
        family = "redhat"
    return Os(fields.get("ID", "unknown"), fields.get("VERSION_ID", "unknown"), family)


def headers_package(root: Root, release: str) -> str:
    """Return the name of the package with a kernel's headers."""
    return ("kernel-devel-%s" if read_os(root).family == "redhat" else "linux-headers-%s") % release


def missing_for_build(root: Root, release: str) -> dict[str, str]:
    """Return what a DKMS build for a kernel lacks: the package's name and what shows that it is missing."""
    missing = {}
    if find_program(root, "dkms") is None:
        missing["dkms"] = "no program dkms in %s" % ":".join(BIN_DIRS)
    if compiler(root, release) is None:
        missing["gcc"] = "no compiler gcc in %s" % ":".join(BIN_DIRS)
    if find_program(root, "make") is None:
        missing["make"] = "no program make in %s" % ":".join(BIN_DIRS)
    if headers(root, release) is None:
        missing[headers_package(root, release)] = "%s/%s/build does not lead to a Makefile" % (MODULES, release)
    return missing
