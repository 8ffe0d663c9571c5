# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""A kernel made for finding bugs, built from the distribution's source with tests/kmod/debug.config, and cached."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from rig.common import RigError, locked, run_logged, say

from .archive import Archive, kmod_cache
from .root import ENV, chroot_command, compiler_root

SERIES = "debug"
RELEASE = "bookworm"  # of Debian, whose oldest supported kernel has the locking that is most different from ours
SOURCE = "linux-source-6.1"
CONFIG = Path(__file__).resolve().parent.parent.parent / "tests/kmod/debug.config"
PACKAGES = ("bc", "bison", "cpio", "flex", "gcc", "gzip", "libc6-dev", "libelf-dev", "libssl-dev", "perl", "tar")
# Not needed on x86, or only its Kconfig files are: half the size of the tree
LEFT_OUT = (
    "*/Documentation/*.[rty]*",
    "*/arch/[!x]*/*.[chS]",
    "*/arch/[!x]*/*.dts*",
    "*/sound/*.[ch]",
    *(f"*/drivers/{name}/*.[ch]" for name in ("gpu", "media", "staging")),
)
TREE = "usr/src/linux"


def root(archive: Archive) -> Path:
    """A compiler with the built kernel in /usr/src/linux and its modules where they belong."""
    source = archive.version(SOURCE)
    path = compiler_root(
        archive,
        SERIES,
        "compiler for the debugging kernel",
        PACKAGES,
        source + CONFIG.read_text(encoding="utf-8") + repr(LEFT_OUT),
    )
    with locked(path.parent / f"{path.name}.lock", "building the debugging kernel"):
        if not (path / "boot/vmlinuz").is_file():
            _build(archive, path)
    return path


def _build(archive: Archive, path: Path) -> None:
    tree = path / TREE
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    with archive.download("the source of the debugging kernel", [SOURCE]) as debs:
        say("unpacking the source of the debugging kernel")
        skip = " ".join(f"--exclude='{pattern}'" for pattern in LEFT_OUT)
        pipe = (
            f'set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -xO ./usr/src/{SOURCE}.tar.xz'
            f' | tar -xJ -C "$1" --strip-components=1 --wildcards {skip}'
        )
        subprocess.run(["bash", "-c", pipe, debs[0], tree], check=True)
    shutil.copy(CONFIG, tree / "debug.config")
    log = kmod_cache() / "build-debug-kernel.log"
    log.unlink(missing_ok=True)

    def make(what: str, *arguments: str) -> None:
        command = ["make", "-s", "-C", f"/{TREE}", f"-j{os.cpu_count()}", "KBUILD_BUILD_USER=noiommu", *arguments]
        run_logged(what, chroot_command(path, command), log, f"read {log}", ENV)

    make("configuring the debugging kernel", "KCONFIG_ALLCONFIG=debug.config", "allnoconfig")
    got = (tree / ".config").read_text(encoding="utf-8").splitlines()
    wanted = CONFIG.read_text(encoding="utf-8").splitlines()
    lost = [line for line in wanted if line.startswith("CONFIG") and line not in got]
    if lost:
        raise RigError(
            "the debugging kernel cannot be configured as wanted",
            "\n".join(lost),
            f"find out what these depend on in {tree}, and change {CONFIG}",
        )
    make("building the debugging kernel", "bzImage", "modules")
    make("installing its modules", "modules_install")
    name = (tree / "include/config/kernel.release").read_text(encoding="utf-8").strip()
    build = path / "usr/lib/modules" / name / "build"  # where the module's Makefile looks
    build.unlink(missing_ok=True)
    build.symlink_to(f"/{TREE}")
    (path / "boot").mkdir(exist_ok=True)
    half = path / "boot/vmlinuz.new"
    shutil.copy(tree / "arch/x86/boot/bzImage", half)
    half.rename(path / "boot/vmlinuz")


def release(archive: Archive) -> str:
    """What `uname -r` says in it."""
    return (root(archive) / TREE / "include/config/kernel.release").read_text(encoding="utf-8").strip()


def boot_files(archive: Archive) -> tuple[Path, Path]:
    """The kernel image, and the directory of its modules."""
    path = root(archive)
    return path / "boot/vmlinuz", path / "usr/lib/modules" / release(archive)
