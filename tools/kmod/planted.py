# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Faults that are planted into the kernel module, to see that the selftests notice them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rig.common import RigError

from . import kernels, selftests

FAULTS = selftests.HERE / "faults"
PROGRAMS = {"patch": "patch"}


@dataclass(frozen=True)
class Fault:
    """A patch for the module, and the test that has to fail with it."""

    name: str
    patch: Path
    what: str
    selftest: selftests.Selftest
    caught_by: str


def read(patch: Path) -> Fault:
    """What the header of a patch says."""
    header = patch.read_text(encoding="utf-8").partition("\n---\n")[0]
    fields = dict(re.findall(r"^(Selftest|Caught-by): (.+)$", header, re.M))
    tests = {test.name: test for test in selftests.SELFTESTS if not test.gic}
    if "Caught-by" not in fields or fields.get("Selftest") not in tests:
        raise RigError(
            f"{patch.name} does not say which test catches it",
            header,
            "write lines Selftest: and Caught-by: above its ---; selftests are " + ", ".join(tests),
        )
    what = header.split("\n\n")[1].replace("\n", " ")
    return Fault(patch.stem, patch, what, tests[fields["Selftest"]], fields["Caught-by"])


def all_faults() -> list[Fault]:
    return [read(patch) for patch in sorted(FAULTS.glob("*.patch"))]


def plant(fault: Fault, into: Path) -> Path:
    """A copy of the module's source with the fault."""
    source = into / "kmod"
    shutil.copytree(kernels.SOURCE, source, ignore=shutil.ignore_patterns("*.o", "*.ko", "*.mod*", ".*"))
    done = subprocess.run(
        ["patch", "--batch", "--fuzz=0", "-p1", "-i", fault.patch],
        cwd=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RigError(
            f"{fault.patch.name} does not apply", done.stdout, "plant the fault into the source as it is now"
        )
    return source


def catches(fault: Fault, tests: Iterable[str]) -> list[str]:
    """The tests that failed as they have to, from the lines of a run's TAP."""
    return [line for line in tests if re.match(r"not ok \d+ - ", line) and fault.caught_by in line]
