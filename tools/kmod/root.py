# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Directory trees with a compiler and all it runs, to build kernels and modules in: the machine itself needs none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .archive import Archive, kmod_cache, unpacked

# What a kernel build runs besides the compiler, which the headers depend on.
BUILD_PACKAGES = (
    "base-files",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "gawk",
    "grep",
    "kmod",
    "make",
    "sed",
    "sparse",
    "xz-utils",
)
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/"}


def forget(pattern: str, keep: Path) -> None:
    """Remove what earlier versions of the packages left in the cache."""
    for old in kmod_cache().glob(pattern):
        if old.is_dir() and old != keep:
            shutil.rmtree(old, ignore_errors=True)


def compiler_root(archive: Archive, name: str, what: str, packages: Sequence[str], recipe: str = "") -> Path:
    """The tree with these packages and BUILD_PACKAGES; another one if the recipe is another."""
    plan = archive.plan([*packages, *BUILD_PACKAGES])
    digest = hashlib.sha256("\n".join([*sorted(plan), *filter(None, [recipe])]).encode()).hexdigest()[:12]
    root = kmod_cache() / f"root-{name}-{digest}"
    forget(f"root-{name}-*", root)
    unpacked(archive, what, plan, root)
    null = root / "dev/null"
    null.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    for sub in ("proc", "tmp"):
        (root / sub).mkdir(exist_ok=True)
    awk = root / "usr/bin/awk"  # an alternative, which a maintainer script would have made
    if not awk.is_symlink():
        awk.symlink_to("gawk")
    return root


def chroot_command(root: Path, command: Sequence[str]) -> list[str]:
    """How to run a command in the tree; /proc, which objtool reads, is mounted for it alone."""
    inside = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    return ["unshare", "--mount", "sh", "-c", inside, str(root), *command]


def chroot(root: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the tree."""
    return subprocess.run(
        chroot_command(root, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env=ENV,
    )
