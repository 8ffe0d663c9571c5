# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is checked before a DKMS build starts, and why it failed according to its log."""

from __future__ import annotations

import os
import re

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._host import kernels as _kernels

MIB = 1 << 20
# Measured for this collection's module with debug information, rounded up generously.
SPACE = {"/usr/src": 4 * MIB, "/var/lib/dkms": 16 * MIB, "/tmp": 16 * MIB}
# depmod writes a kernel's whole index anew before it drops the old one.
SPACE_PER_KERNEL = 16 * MIB

_CAUSE = re.compile(
    r"\berror:|\bfatal\b|\*\*\*|No space left|Read-only file system|Permission denied|not found|Killed"
    r"|internal compiler error|cannot ",
    re.IGNORECASE,
)


def lacking(root: Root, kernels: list[str]) -> HostError | None:
    """Return the error for what the host lacks to build for these kernels, or None."""
    missing: dict[str, str] = {}
    for kernel in kernels:
        missing.update(_kernels.missing_for_build(root, kernel))
    if not missing:
        return None
    commands = {"debian": "apt-get install %s", "redhat": "dnf install %s"}
    install = commands.get(_kernels.read_os(root).family, "install %s")
    remedy = "Run: %s." % (install % " ".join(sorted(missing)))
    if any("headers" in package or "devel" in package for package in missing):
        remedy += (
            " Headers must match the kernel exactly; if the package sources do not carry them any more, install a"
            " newer kernel together with its headers and boot it."
        )
    return HostError(
        "build_tools_missing",
        "Building for %s needs packages that are not installed: %s." % (", ".join(kernels), ", ".join(sorted(missing))),
        evidence=["%s: %s" % item for item in sorted(missing.items())],
        remedy=remedy,
    )


def require_space(root: Root, kernels: list[str]) -> None:
    """Refuse where a filesystem is too full; directories on one filesystem share it."""
    needs = dict(SPACE)
    needs.update({"%s/%s" % (_kernels.MODULES, kernel): SPACE_PER_KERNEL for kernel in kernels})
    filesystems: dict[int, list[str]] = {}
    for path in needs:
        filesystems.setdefault(os.stat(_existing(root, path)).st_dev, []).append(path)
    for paths in filesystems.values():
        need = sum(needs[path] for path in paths)
        stats = os.statvfs(_existing(root, paths[0]))
        free = stats.f_bavail * stats.f_frsize
        if free < need:
            raise HostError(
                "no_space",
                "There is not enough space left to build and install the module.",
                evidence=[
                    "filesystem of %s: %d MiB free, %d MiB needed" % (", ".join(paths), free // MIB, need // MIB)
                ],
                remedy="Free space there (old kernels are a usual cause: apt-get autoremove), then run again.",
            )


def _existing(root: Root, path: str) -> str:
    while path != "/" and not root.exists(path):
        path = os.path.dirname(path)
    return root.path(path)


def require_writable(root: Root, kernels: list[str]) -> None:
    """Refuse where the modules could not be installed."""
    for kernel in kernels:
        path = "%s/%s" % (_kernels.MODULES, kernel)
        try:
            root.try_writing(path)
        except OSError as exc:
            raise HostError(
                "modules_unwritable",
                "The module cannot be installed: %s is not writable." % path,
                evidence=["%s: %s" % (path, exc.strerror)],
                remedy="Remount the filesystem read-write (mount -o remount,rw), or clear an immutable flag"
                " (chattr -i); on an image-based system the module has to be part of the image.",
            ) from exc


def require_compiler(root: Root, runner: Runner, kernels: list[str]) -> None:
    """Refuse a compiler that is installed but does not work."""
    for path in sorted({_kernels.compiler(root, kernel) or "gcc" for kernel in kernels}):
        done = runner.run(path, "-x", "c", "-c", "/dev/null", "-o", "/dev/null")
        if done.rc != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise HostError(
                "compiler_broken",
                "The compiler %s does not work." % path,
                evidence=["compiling an empty file: rc %d: %s" % (done.rc, said[0] if said else "no message")],
                remedy="Reinstall it (Debian: apt-get install --reinstall the package that `dpkg -S %s` names)." % path,
            )


def cause(log: str) -> list[str]:
    """Return the lines of a build log that say why it failed, or its last ones."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if _CAUSE.search(line)]
    # make repeats at each level that something failed below.
    first = [line for line in telling if not re.match(r"^make(\[\d+\])?: \*\*\*", line)]
    return (first or telling)[:6] or lines[-6:]
