# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would make a later step impossible whatever is declared: filesystems, systemd, packages, loading modules.

Each is read from the host. Whoever would fail on it later says so much less clearly, and after other things were done.
"""

from __future__ import annotations

import os
import re
from typing import Iterator, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import LIBRARY, STATE
from .._dkms import checks
from .._host import kernels, modprobe
from .._host.filesystems import read_only, room
from .._host.modules import module_installed, module_loaded
from .._policy.backend import needs
from .._policy.kinds import VFIO_PCI

# Where our files on a host are, and how much room the step needs that writes them.
_PLACES = ("/etc", LIBRARY, STATE)
_ROOM = 4 << 20
_FILES = 64
_DKMS_PLACES = ("/usr/src", "/var/lib/dkms")
# As kmod/dkms.conf has it.
OLDEST_KERNEL, MACHINES = "6.1", ("x86_64", "aarch64")
_OFF = "/proc/sys/kernel/modules_disabled"
_SYSTEMD = "/run/systemd/system"


class Steps(NamedTuple):
    """Which steps a deploy would have."""

    backend: str | None  # of the declared devices
    at_boot: bool  # something that each boot has to set up again
    combines: bool  # BARs are to be write-combined
    module_required: bool  # the noiommu module is installed
    is_prebuilt: bool
    packages: list[str]  # which have to be installed for a build


def refusals(root: Root, steps: Steps) -> list[HostError]:
    """Return everything that would stop a step."""
    found: list[HostError] = []
    if steps.at_boot:
        found += [*_unwritable(root, _PLACES), *_full(root), *_no_systemd(root)]
    if steps.backend is not None:
        found += _modules(root, steps.backend, steps.combines)
    if steps.module_required and not module_installed(root, "noiommu", kernels.running(root)):
        found += _build(root, steps)
    return found


# --- files ---


def _unwritable(root: Root, places: tuple[str, ...]) -> Iterator[HostError]:
    found: dict[str, list[str]] = {}
    for place in places:
        why = read_only(root, place)
        if why:
            found.setdefault(why, []).append(place)
    for why, there in found.items():
        yield HostError(
            "read_only",
            "Nothing can be written below %s: the filesystem is read-only." % ", ".join(there),
            evidence=[why],
            remedy="Remount it (mount -o remount,rw). If an error made it read-only, the kernel's log has that; on an"
            " image-based system, what this collection writes has to be part of the image.",
        )


def _full(root: Root) -> Iterator[HostError]:
    found: dict[int, str] = {}
    for place in _PLACES:
        left = room(root, place)
        if left.size < _ROOM:
            found.setdefault(left.device, "filesystem of %s: %d KiB free" % (place, left.size >> 10))
        elif left.files is not None and left.files < _FILES:
            found.setdefault(left.device, "filesystem of %s: %d more files can be made" % (place, left.files))
    if found:
        yield HostError(
            "no_space",
            "There is no room for this collection's own files.",
            evidence=list(found.values()),
            remedy="Free %d MiB and %d files there, then run again." % (_ROOM >> 20, _FILES),
        )


def _no_systemd(root: Root) -> Iterator[HostError]:
    if not root.exists(_SYSTEMD):
        yield HostError(
            "no_systemd",
            "This host was not booted by systemd: no boot would bring up what is declared.",
            evidence=["%s: absent" % _SYSTEMD],
            remedy="Use a host that runs systemd, and run on the host itself and not in a container or a chroot.",
        )


# --- modules ---


def _modules(root: Root, backend: str, combines: bool) -> Iterator[HostError]:
    wanted = needs(backend, VFIO_PCI, True, combines).modules
    missing = [module for module in wanted if not module_loaded(root, module)]
    if not missing:
        return
    if root.read_text(_OFF) == "1":
        yield HostError(
            "modules_disabled",
            "This kernel loads no module any more until it is rebooted: %s." % ", ".join(missing),
            evidence=["%s: 1" % _OFF],
            remedy="Look for what sets kernel.modules_disabled (sysctl.d, a unit), let it be set after"
            " noiommu-bindings.service, and reboot.",
        )
    if kernels.find_program(root, "modprobe") is None:
        yield HostError(
            "no_modprobe",
            "Kernel modules cannot be loaded: there is no modprobe.",
            evidence=["no program modprobe in %s" % ":".join(kernels.BIN_DIRS)],
            remedy="Install the package kmod.",
        )
    blocked = [line for module in missing for line in modprobe.blocks(root, module)]
    if blocked:
        yield HostError(
            "module_blocked",
            "Somebody has forbidden to load a module that the backend %s needs." % backend,
            evidence=blocked,
            remedy="Remove that line if it may be loaded on this host; after a change of the command line, reboot.",
        )


# --- the build ---


def _build(root: Root, steps: Steps) -> Iterator[HostError]:
    release = kernels.running(root)
    excluded = list(_excluded(root, release))
    if excluded:
        yield HostError(
            "kernel_excluded",
            "The kernel module cannot be built for the kernel %s." % release,
            evidence=excluded,
            remedy="Boot a kernel from %s on, on %s." % (OLDEST_KERNEL, " or ".join(MACHINES)),
        )
    modules = "%s/%s" % (kernels.MODULES, release)
    yield from _unwritable(root, (modules,) if steps.is_prebuilt else (modules, *_DKMS_PLACES))
    try:
        if not steps.is_prebuilt:
            checks.require_space(root, [release])
    except HostError as exc:
        yield exc
    if steps.packages:
        yield from _no_repository(root, steps.packages)


def _excluded(root: Root, release: str) -> Iterator[str]:
    if kernels.version_key(release.partition("-")[0]) < kernels.version_key(OLDEST_KERNEL):
        yield "/proc/sys/kernel/osrelease: %s, and %s is the oldest that it supports" % (release, OLDEST_KERNEL)
    if os.uname().machine not in MACHINES:
        yield "uname -m: %s" % os.uname().machine


def _no_repository(root: Root, packages: list[str]) -> Iterator[HostError]:
    family = kernels.read_os(root).family
    places = {"debian": "/etc/apt/sources.list and /etc/apt/sources.list.d", "redhat": "/etc/yum.repos.d"}
    if family in places and not (_has_apt(root) if family == "debian" else _has_dnf(root)):
        yield HostError(
            "no_repository",
            "Packages have to be installed, and no repository is set up: %s." % ", ".join(packages),
            evidence=["%s: nothing is enabled there" % places[family]],
            remedy="Set one up, install the packages yourself, or use noiommu_kmod_build: prebuilt.",
        )


def _has_apt(root: Root) -> bool:
    folder = "/etc/apt/sources.list.d"
    files = ["/etc/apt/sources.list", *("%s/%s" % (folder, name) for name in root.listdir(folder))]
    for path in files:
        text = root.read_text(path) or ""
        stanzas = text.split("\n\n") if path.endswith(".sources") else []
        if path.endswith(".list") and re.search(r"^\s*deb\s", text, re.MULTILINE):
            return True
        if any(_is_on(stanza, r"^Types:.*\bdeb\b", r"^Enabled:\s*(no|false|0)\b") for stanza in stanzas):
            return True
    return False


def _has_dnf(root: Root) -> bool:
    folder = "/etc/yum.repos.d"
    texts = [root.read_text(folder, name) or "" for name in root.listdir(folder) if name.endswith(".repo")]
    sections = [section for text in texts for section in re.split(r"^(?=\[)", text, flags=re.MULTILINE)]
    return any(_is_on(section, r"^\[", r"^enabled\s*=\s*(0|no|false)\b") for section in sections)


def _is_on(text: str, kind: str, off: str) -> bool:
    flags = re.MULTILINE | re.IGNORECASE
    return re.search(kind, text, flags) is not None and re.search(off, text, flags) is None
