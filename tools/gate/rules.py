# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What is proven by running it whole, and which paths each proof rests on: the only place that says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rig.common import RigError

MAX_DAYS = 30  # the lint fails where a change waits longer than this for its proof
# Seconds that a scenario is expected to take until the table has a measured time.
ESTIMATE = 900
IMAGES = 300  # what the images of a scenario may take besides, on a machine that has none yet
ESTIMATES = {
    "molecule-arm64": 3600,
    "molecule-faults": 6000,
    "molecule-forky": 1600,
    "molecule-selinux": 1600,
    "molecule-systemd-boot": 2700,
}

COLLECTION = ("galaxy.yml", "kmod", "meta", "playbooks", "plugins", "roles")
RIG = ("requirements-dev.txt", "tools/images", "tools/rig", "tools/vm")
SCENARIO = (
    *COLLECTION,
    *RIG,
    ".config/molecule",
    "molecule/shared",
    "tests/callbacks",
    "tests/clients",
    "tests/hoststate.py",
    "tests/live.py",
    "tests/traffic.py",
)
REBUILT_VFIO = ("tools/kmod", "tools/vfio-noiommu")
# What a scenario uses besides its own folder and what all of them use.
ALSO_USED = {
    "builtin": REBUILT_VFIO,
    "faults": ("tests/fault_injection.py", "tests/faults.py"),
    "fleet": (*REBUILT_VFIO, "docs/report.schema.json", "tests/report", "tools/report-deps"),
    "ovs": ("tests/wires.py",),
    "secureboot": ("tests/signing.py",),
    "selinux": ("tests/denials.py",),
    "sriov": ("tests/frames.py", "tests/virtual_functions.py"),
    "upgrade": ("tests/upgrading.py",),
}
KMOD_TEST = ("kmod", "tests/kmod", "tools/kmod", "tools/rig")
# What is no scenario, by the name that make has for it.
OTHERS = {
    "bench-bind": (*COLLECTION, *RIG, "bench/bind", "bench/bind.yml", "bench/bind_guest.py"),
    "bench-rig": ("kmod", *RIG, "bench/rig", "bench/rig.c", "bench/rig.yml", "tests/kmod/guest.h", "tools/kmod"),
    "bench-scale": (
        *COLLECTION,
        "requirements-dev.txt",
        "bench/conventional.yml",
        "bench/scale",
        "bench/scale_hosts.py",
        "bench/simulated.py",
        "docs/examples/ansible.cfg",
        "tests/unit/support/fake_dkms.py",
        "tests/unit/support/fake_kernel.py",
        "tests/unit/support/fake_module.py",
        "tests/unit/support/tree.py",
    ),
    "bench-translate": (
        "kmod",
        "tools/kmod",
        "tools/rig",
        "bench/measure.h",
        "bench/translate",
        "bench/translate.c",
        "bench/type1.c",
        "tests/kmod/client.h",
        "tests/kmod/guest.h",
    ),
    "kmod-arm64": KMOD_TEST,
    "kmod-cycles": KMOD_TEST,
    "kmod-cycles-debug": KMOD_TEST,
    "kmod-debug": KMOD_TEST,
    "kmod-fuzz": KMOD_TEST,
    "kmod-planted": KMOD_TEST,
    "kmod-selftest": KMOD_TEST,
    "report-test": ("docs/alerts.yml", "plugins", "requirements-dev.txt", "tests/report", "tools/report-deps"),
}
PREFIX = "molecule-"


@dataclass(frozen=True)
class Rule:
    """One thing that is proven, by the name that make has for it."""

    name: str
    paths: tuple[str, ...]
    seconds: int = ESTIMATE  # expected, until there is a measured time

    @property
    def scenario(self) -> str:
        """The scenario's name, or nothing if this is none."""
        return self.name[len(PREFIX) :] if self.name.startswith(PREFIX) else ""


def rules(root: Path) -> dict[str, Rule]:
    """Everything that is proven, by name. A folder of molecule/ with a molecule.yml is a scenario."""
    found = {name: Rule(name, paths) for name, paths in OTHERS.items()}
    for path in sorted(root.glob("molecule/*/molecule.yml")):
        scenario = path.parent.name
        name = PREFIX + scenario
        found[name] = Rule(
            name, (*SCENARIO, f"molecule/{scenario}", *ALSO_USED.get(scenario, ())), ESTIMATES.get(name, ESTIMATE)
        )
    return dict(sorted(found.items()))


def find(known: dict[str, Rule], name: str) -> Rule:
    """The rule with a name that was given on the command line."""
    if name not in known:
        raise RigError(
            f"nothing is proven under the name {name}",
            "known: " + ", ".join(known),
            "use one of these; tools/gate/rules.py says what each of them rests on",
        )
    return known[name]
