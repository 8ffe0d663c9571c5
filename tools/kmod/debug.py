# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Kernels made for finding bugs, built from the distribution's source with tests/kmod/*.config, and cached."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rig.common import RigError, locked, run_logged, say

from .archive import Archive, kmod_cache
from .root import ENV, chroot_command, compiler_root

CONFIGS = Path(__file__).resolve().parent.parent.parent / "tests/kmod"


@dataclass(frozen=True)
class Recipe:
    """What a kernel is made from: a release of Debian, a package of it, and files in CONFIGS."""

    release: str
    source: str
    configs: tuple[str, ...]

    def options(self) -> list[str]:
        """The options that are set in these files: a later one changes what an earlier one says."""
        options: dict[str, str] = {}
        for name in self.configs:
            for line in (CONFIGS / name).read_text(encoding="utf-8").splitlines():
                if line.startswith("CONFIG"):
                    options[line.partition("=")[0]] = line
                elif line.startswith("# CONFIG") and line.endswith(" is not set"):
                    options.pop(line.split()[1], None)
        return list(options.values())


SERIES = "debug"  # the oldest supported kernel, whose locking differs most from that of the newest
CDEV = "cdev"  # one with iommufd and VFIO's character devices, which Debian's own kernels have not
RECIPES = {
    SERIES: Recipe("bookworm", "linux-source-6.1", ("debug.config",)),
    CDEV: Recipe("trixie", "linux-source-6.12", ("debug.config", "cdev.config")),
}
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


def root(archive: Archive, series: str) -> Path:
    """A compiler with the built kernel in /usr/src/linux and its modules where they belong."""
    recipe = RECIPES[series]
    what = f"the debugging kernel {series!r}"
    path = compiler_root(
        archive,
        series,
        f"compiler for {what}",
        PACKAGES,
        archive.version(recipe.source) + "\n".join(recipe.options()) + repr(LEFT_OUT),
    )
    with locked(path.parent / f"{path.name}.lock", f"building {what}"):
        if not (path / "boot/vmlinuz").is_file():
            _build(archive, recipe, what, path, kmod_cache() / f"build-{series}-kernel.log")
    return path


def configure(archive: Archive, recipe: Recipe, what: str, path: Path, log: Path) -> None:
    """Unpack the source, and see that the kernel can be configured as wanted."""
    tree = path / TREE
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    with archive.download(f"the source of {what}", [recipe.source]) as debs:
        say(f"unpacking the source of {what}")
        skip = " ".join(f"--exclude='{pattern}'" for pattern in LEFT_OUT)
        pipe = (
            f'set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -xO ./usr/src/{recipe.source}.tar.xz'
            f' | tar -xJ -C "$1" --strip-components=1 --wildcards {skip}'
        )
        subprocess.run(["bash", "-c", pipe, debs[0], tree], check=True)
    wanted = recipe.options()
    (tree / "debug.config").write_text("\n".join(wanted) + "\n", encoding="utf-8")
    _make(f"configuring {what}", path, log, "KCONFIG_ALLCONFIG=debug.config", "allnoconfig")
    got = (tree / ".config").read_text(encoding="utf-8").splitlines()
    lost = [line for line in wanted if line not in got]
    if lost:
        raise RigError(
            f"{what} cannot be configured as wanted",
            "\n".join(lost),
            f"see what these depend on in {tree}, and change {' or '.join(recipe.configs)} in {CONFIGS}",
        )


def _make(what: str, path: Path, log: Path, *arguments: str) -> None:
    command = ["make", "-s", "-C", f"/{TREE}", f"-j{os.cpu_count()}", "KBUILD_BUILD_USER=noiommu", *arguments]
    run_logged(what, chroot_command(path, command), log, f"read {log}", ENV)


def _build(archive: Archive, recipe: Recipe, what: str, path: Path, log: Path) -> None:
    log.unlink(missing_ok=True)
    configure(archive, recipe, what, path, log)
    tree = path / TREE
    _make(f"building {what}", path, log, "bzImage", "modules")
    _make("installing its modules", path, log, "modules_install")
    name = (tree / "include/config/kernel.release").read_text(encoding="utf-8").strip()
    build = path / "usr/lib/modules" / name / "build"  # where the module's Makefile looks
    build.unlink(missing_ok=True)
    build.symlink_to(f"/{TREE}")
    (path / "boot").mkdir(exist_ok=True)
    half = path / "boot/vmlinuz.new"
    shutil.copy(tree / "arch/x86/boot/bzImage", half)
    half.rename(path / "boot/vmlinuz")


def release(archive: Archive, series: str) -> str:
    """What `uname -r` says in it."""
    return (root(archive, series) / TREE / "include/config/kernel.release").read_text(encoding="utf-8").strip()


def boot_files(archive: Archive, series: str) -> tuple[Path, Path]:
    """The kernel image, and the directory of its modules."""
    path = root(archive, series)
    return path / "boot/vmlinuz", path / "usr/lib/modules" / release(archive, series)
