# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The Debian packages the rig, the demo and the tests need. Runs before any of them exists: standard library only."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from .common import RigError, run_logged, say

PACKAGES = {
    "cpio": "to pack the initramfs of a small machine",
    "patch": "to plant faults into the kernel module",
    "debian-archive-keyring": "to verify the packages of an image",
    "dosfstools": "to make the partition of an image that UEFI firmware boots",
    "e2fsprogs": "to make the file system of an image",
    "gcc": "to compile the tests of the kernel module",
    "git": "to know which files belong to the project",
    "iproute2": "to try the guards in a network namespace",
    "kmod": "to read what a kernel module says of itself",
    "libc6-dev": "to compile the tests of the kernel module",
    "mmdebstrap": "to build an image from packages",
    "mtools": "to put files into that partition",
    "openssh-client": "to reach the machines",
    "ovmf": "to run machines with UEFI firmware",
    "perl": "to run the kernel's checkpatch",
    "python3-venv": "to hold ansible-core, molecule and the linters in .venv",
    "python3-yaml": "to read machine lists",
    "qemu-system-arm": "to run the kernel module's tests on arm64",
    "qemu-system-x86": "to run the machines",
    "qemu-utils": "to make their disks",
    "xz-utils": "to unpack kernel modules",
}
# What machines with another processor need besides.
ARM64 = {
    "arch-test": "to know whether programs of arm64 run here",
    "binfmt-support": "to run them while an image is built",
    "qemu-efi-aarch64": "to run arm64 machines with UEFI firmware",
    "qemu-system-arm": "to run arm64 machines",
    "qemu-user-static": "to run programs of arm64",
}


def wanted(arm64: bool) -> dict[str, str]:
    """The packages, and what each is for."""
    return {**PACKAGES, **(ARM64 if arm64 else {})}


def missing(arm64: bool = False) -> list[str]:
    """Names of packages that are not installed."""
    names = wanted(arm64)
    try:
        out = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        ).stdout
    except FileNotFoundError as exc:
        raise RigError(
            "this is not a Debian system",
            "dpkg-query is not there",
            "run the rig on Debian 12 or newer, or install by hand: " + " ".join(names),
        ) from exc
    present = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in present]


def install(names: list[str]) -> None:
    """apt-get install the given packages."""
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *names]
    if os.geteuid() != 0:
        raise RigError(
            "packages are missing and only root can install them",
            "missing: " + " ".join(names),
            "run: sudo " + " ".join(command),
        )
    say("installing Debian packages: " + " ".join(f"{name} ({wanted(True)[name]})" for name in names))
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with tempfile.TemporaryDirectory() as tmp:
        log = Path(tmp) / "apt.log"
        remedy = "see that apt's package sources can be reached: apt-get update"
        run_logged("apt-get update", ["apt-get", "update"], log, remedy, env)
        run_logged("apt-get install", command, log, remedy, env)


def require(arm64: bool = False) -> None:
    """Stop with the remedy if something is missing."""
    names = missing(arm64)
    if names:
        command = "tools/vm deps --install" + (" --arm64" if arm64 else "")
        raise RigError("Debian packages are missing: " + " ".join(names), "", f"run as root: {command}")
