# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The modules of VFIO of a kernel with CONFIG_VFIO_NOIOMMU, built from the distribution's source and cached."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from rig.common import RigError, locked, say

from . import kernels
from .archive import kmod_cache
from .root import chroot, forget

OPTION = "CONFIG_VFIO_NOIOMMU"
# What a host without these devices has no use for
LEFT_OUT = ("CONFIG_VFIO_MDEV=", "CONFIG_VFIO_PLATFORM=", "CONFIG_MLX5_VFIO_PCI=", "CONFIG_HISI_ACC_VFIO_PCI=")


def noiommu_modules(release: str) -> Path:
    """The rebuilt modules of this kernel in the layout of drivers/vfio."""
    kernel = kernels.of_release(release)
    source = f"linux-source-{kernel.series}"
    # The archive may have a newer source already; it builds, too, but the same one is what the kernel was made from.
    version = kernel.archive.version(f"{kernels.HEADERS}{release}")
    if version not in kernel.archive.versions(source):
        version = kernel.archive.version(source)
        say(f"the source of kernel {release} is not in the archive any more, {source} {version} is taken")
    digest = hashlib.sha256((version + Path(__file__).read_text(encoding="utf-8")).encode()).hexdigest()[:12]
    final = kmod_cache() / f"vfio-{kernel.release}-{digest}"
    with locked(final.with_name(final.name + ".lock"), "building VFIO"):
        if not final.is_dir():
            forget(f"vfio-{kernel.release}-*", final)
            _build(kernel, f"{source}={version}", final)
    return final


def _build(kernel: kernels.Kernel, source: str, final: Path) -> None:
    root = kernels.build_root(kernel)
    work = root / f"vfio-{os.getpid()}"
    half = final.with_name(final.name + ".new")
    shutil.rmtree(half, ignore_errors=True)
    work.mkdir()
    try:
        with kernel.archive.download(f"the source of kernel {kernel.series}", [source]) as debs:
            say("unpacking the source of VFIO")
            name = source.partition("=")[0]
            pipe = (
                f'set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -xO ./usr/src/{name}.tar.xz'
                f' | tar -xJ -C "$1" --strip-components=3 {name}/drivers/vfio'
            )
            subprocess.run(["bash", "-c", pipe, debs[0], work], check=True)
        # The headers' configuration says no; code and makefiles are told otherwise.
        out = chroot(
            root,
            [
                "make",
                "-C",
                f"/usr/lib/modules/{kernel.release}/build",
                f"-j{os.cpu_count()}",
                f"M=/{work.name}",
                f"{OPTION}=y",
                f"KCFLAGS=-D{OPTION}=1",
                *LEFT_OUT,
                "modules",
            ],
        )
        log = kmod_cache() / f"build-vfio-{kernel.series}.log"
        log.write_text(out.stdout, encoding="utf-8")
        modules = sorted(work.rglob("*.ko"))
        if out.returncode or not modules:
            raise RigError(
                f"VFIO of kernel {kernel.release} does not build",
                "\n".join(out.stdout.splitlines()[-10:]),
                f"read {log}",
            )
        for module in modules:
            target = half / module.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            chroot(root, ["strip", "--strip-debug", f"/{module.relative_to(root)}"])
            shutil.copy2(module, target)
        half.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
