# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments of Python below the cache, for versions of ansible-core and for engines that .venv lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/ansible"
# ansible-core, oldest first, and the oldest Python of its control node.
NEEDS = {"2.18": (3, 11), "2.19": (3, 11), "2.20": (3, 12), "2.21": (3, 12)}
# Without it, ansible-galaxy builds no collection whose galaxy.yml has a manifest.
BUILDS = "distlib==0.4.*"


def find_python(least: tuple[int, int]) -> str | None:
    """Return the oldest Python on this machine that is new enough, for it is most widely used."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(least[1], 20):
        name = f"python{least[0]}.{minor}"
        installed = sorted(pyenv.glob(f"{least[0]}.{minor}.*/bin/{name}"))
        for python in (shutil.which(name), *map(str, installed)):
            # A name on PATH may be pyenv's, which says only when it is run that there is no such version.
            if python and not subprocess.run([python, "-m", "venv", "-h"], capture_output=True, check=False).returncode:
                return python
    return None


def venv(name: str, python: str, *packages: str) -> Path:
    """Return the directory of an environment's programs; made once, and again if it is to have others."""
    path = CACHE / name
    wanted = "\n".join([python, *packages])
    stamp = path / "has"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"    making an environment with {', '.join(packages)}", file=sys.stderr, flush=True)
        subprocess.run([python, "-m", "venv", "--clear", str(path)], check=True)
        subprocess.run([str(path / "bin/pip"), "install", "--quiet", *packages], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return path / "bin"
