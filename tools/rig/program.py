# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which QEMU runs a machine: this machine's own, or a newer one beside it for devices that this one does not have."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

from .common import UNUSED, RigError, cache_dir
from .spec import Machine

SYSTEM = "qemu-system-x86_64"
NEW_MODELS = ("igb",)  # since QEMU 8.0
PACKAGE = "qemu-system-x86"


def choose(machine: Machine) -> list[str]:
    """The program and the options that every start of this machine begins with."""
    wanted = {nic.model for nic in machine.nics} & set(NEW_MODELS)
    if all(has(SYSTEM, model) for model in wanted):
        return [SYSTEM]
    root = backported()
    line = [str(root / "usr/bin" / SYSTEM)]
    for model in wanted:
        if not has(line[0], model):
            raise RigError(
                f"the QEMU of Debian's backports does not run here or has no {model}",
                f"{line[0]} -device {model},help fails",
                f"remove {root} and run the same command again",
            )
    return [*line, "-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios")]


def has(program: str, model: str) -> bool:
    """Whether this QEMU has a device model."""
    try:  # it ends with success in either case
        return (
            f"{model} options:"
            in subprocess.run(
                [program, "-device", f"{model},help"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=False,
            ).stdout
        )
    except OSError:
        return False


def backported() -> Path:
    """The QEMU of this release's backports, unpacked in the cache; nothing is installed."""
    from kmod.archive import Archive, unpacked  # which imports this package

    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    archive = Archive(release)
    archive.open()
    # As this machine would install it: what it needs besides is here, or in the plan.
    plan = archive.query(
        [
            "apt-get",
            "-y",
            "-s",
            "-o",
            "Dir::State::status=/var/lib/dpkg/status",
            "install",
            "-t",
            f"{release}-backports",
            PACKAGE,
        ]
    )
    packages = [
        f"{name}={version}"
        for name, version in re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", plan, re.M)
        if name != "qemu-utils"
    ]
    if not any(package.startswith(PACKAGE + "=") for package in packages):
        raise RigError(
            f"Debian {release} has no newer QEMU in its backports",
            plan[-500:],
            "run this on a release whose QEMU or whose backports' QEMU has the model: " + ", ".join(NEW_MODELS),
        )
    digest = hashlib.sha256("\n".join(sorted(packages)).encode()).hexdigest()[:12]
    root = cache_dir() / f"qemu-{digest}"
    unpacked(archive, "the newer QEMU", packages, root)
    os.utime(root)
    for old in cache_dir().glob("qemu-" + 12 * "?"):
        if time.time() - old.stat().st_mtime > UNUSED:
            shutil.rmtree(old)
    return root
