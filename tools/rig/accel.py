# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""KVM or emulation: /dev/kvm can open and then hang a stock kernel, so a real boot decides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from . import qemu
from .common import RigError, Ticker, cache_dir, locked, say, tail
from .spec import Machine

TRIAL = 25.0  # seconds; a stock kernel is at its login prompt in 5 to 10 under a KVM that works


def choose(image: Path, machine: Machine) -> str:
    """`kvm` if the machine's image really boots with it, else `tcg`. The verdict holds until this machine reboots."""
    if machine.architecture != "amd64":
        return "tcg"
    settled = known()
    if settled:
        return settled
    with locked(cache_dir() / "accel.lock", "trying KVM"):
        settled = known()
        if not settled:
            settled = "kvm" if works(image, machine.firmware) else "tcg"
            _note().write_text(json.dumps({"boot_id": _boot(), "accel": settled}), encoding="utf-8")
    return settled


def known() -> str:
    """What is used on this machine as far as it is known without a trial; else empty."""
    forced = os.environ.get("NOIOMMU_ACCEL")
    if forced:
        if forced not in ("kvm", "tcg"):
            raise RigError(f"NOIOMMU_ACCEL={forced} is not possible", "", "use kvm or tcg, or unset it")
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    try:
        verdict = json.loads(_note().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(verdict["accel"]) if verdict.get("boot_id") == _boot() else ""


def _note() -> Path:
    return cache_dir() / "accel.json"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def works(image: Path, firmware: str) -> bool:
    """Boot the image under KVM, writing nothing to it, and see whether it comes to its login prompt."""
    ticker = Ticker(f"trying whether KVM works here (at most {TRIAL:.0f} s)")
    with tempfile.TemporaryDirectory() as tmp:
        here, ident = Path(tmp), str(uuid.uuid4())
        (here / "disk.qcow2").symlink_to(image)
        trial = Machine("kvm-trial", firmware=firmware)
        files = qemu.firmware(trial)
        if files:
            shutil.copy(files[1], here / "vars.fd")
        line = [*qemu.command(trial, ident, "kvm", 0, {}, {}), "-snapshot"]
        serial = here / "serial.log"
        with (here / "qemu.log").open("wb") as log:
            proc = subprocess.Popen(line, cwd=here, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        good = False
        try:
            while proc.poll() is None and ticker.elapsed < TRIAL and not good:
                time.sleep(0.5)
                good = serial.exists() and b"login:" in serial.read_bytes()
        finally:
            proc.kill()
            proc.wait()
        why = "" if good else f", using emulation: {tail(here / 'qemu.log', 1) or 'no login prompt'}"
        say(f"KVM {'works' if good else 'does not boot a stock kernel'} ({ticker.elapsed:.0f} s){why}")
    return good
