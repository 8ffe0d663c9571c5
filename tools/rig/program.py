# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Which QEMU runs a machine: this machine's own, or a newer one beside it, which emulates a processor in less time."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from .common import UNUSED, RigError, cache_dir, say
from .spec import Machine

SYSTEM = "qemu-system-x86_64"
ARM64 = "qemu-system-aarch64"
NEW_MODELS = ("igb",)  # since QEMU 8.0
PACKAGE = "qemu-system-x86"
ENOUGH = (11, 1)  # bench/rig says what the versions cost
RELEASES = ("trixie", "bookworm")  # in whose backports there are newer ones; the first is the one that is used
SYSTEMS_OWN = "system"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def choose(machine: Machine, accel: str) -> list[str]:
    """The program and the options that every start of this machine begins with."""
    if machine.architecture == "arm64":
        return [ARM64]
    wanted = {nic.model for nic in machine.nics} & set(NEW_MODELS)
    own = all(has([SYSTEM], model) for model in wanted)
    if accel == "kvm" and own:
        return [SYSTEM]
    line = emulator()
    if line == [SYSTEM] and not own:
        raise RigError(
            f"this machine's QEMU has no {' or '.join(sorted(wanted))}, and a newer one is not to be had",
            f"{SYSTEM} -device MODEL,help fails; above is said why there is no newer one",
            "see that apt's package sources can be reached, and do not set NOIOMMU_QEMU=system",
        )
    return line


def emulator() -> list[str]:
    """The program, with its options, that emulates a processor: the newer one if it can be had."""
    return list(_emulator(os.environ.get("NOIOMMU_QEMU", "")))


@functools.cache
def _emulator(wish: str) -> list[str]:
    if wish not in ("", SYSTEMS_OWN, *RELEASES):
        raise RigError(
            f"NOIOMMU_QEMU={wish} is not possible",
            "",
            f"use {SYSTEMS_OWN}, or {' or '.join(RELEASES)} for that of its backports, or unset it",
        )
    if wish == SYSTEMS_OWN or (not wish and version([SYSTEM]) >= ENOUGH):
        return [SYSTEM]
    try:
        root = backported(wish or RELEASES[0])
        line = beside(root)
        if version(line) == (0, 0):
            raise RigError("it does not run here", " ".join(line), f"remove {root} and run the same command again")
    except (RigError, OSError, subprocess.CalledProcessError) as exc:
        if wish:
            raise
        say(
            "using this machine's own QEMU, which takes longer, since there is no newer one: "
            + str(exc).replace("\n", "; ")
        )
        return [SYSTEM]
    return line


def beside(root: Path) -> list[str]:
    """How to start a QEMU that was unpacked with all its libraries; those of this machine may be too old for it."""
    return [
        str(root / LIBRARIES / "ld-linux-x86-64.so.2"),
        "--library-path",
        str(root / LIBRARIES),
        str(root / "usr/bin" / SYSTEM),
        "-L",
        str(root / "usr/share/qemu"),
        "-L",
        str(root / "usr/share/seabios"),
    ]


def _output(line: list[str]) -> str:
    try:
        return subprocess.run(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        ).stdout
    except OSError:
        return ""


def has(line: list[str], model: str) -> bool:
    """Whether this QEMU has a device model."""
    return f"{model} options:" in _output([*line, "-device", f"{model},help"])  # it ends with success in either case


def version(line: list[str]) -> tuple[int, int]:
    """The version of this QEMU; 0.0 if it does not run."""
    found = re.match(r"QEMU emulator version (\d+)\.(\d+)", _output([*line, "--version"]))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def backported(release: str) -> Path:
    """The QEMU of this release's backports and all its libraries, unpacked in the cache; nothing is installed."""
    from kmod.archive import Archive, unpacked  # which imports this package

    archive = Archive(release)
    archive.open()
    packages = archive.plan(["-t", f"{release}-backports", PACKAGE])
    digest = hashlib.sha256("\n".join(sorted(packages)).encode()).hexdigest()[:12]
    root = cache_dir() / f"qemu-{digest}"
    unpacked(archive, f"the QEMU of Debian {release}'s backports", packages, root)
    os.utime(root)
    for old in cache_dir().glob("qemu-" + 12 * "?"):
        if time.time() - old.stat().st_mtime > UNUSED:
            shutil.rmtree(old)
    return root
