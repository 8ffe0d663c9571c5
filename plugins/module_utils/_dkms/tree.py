# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module's state in the DKMS tree, in /usr/src and among the kernels' modules, read from files alone."""

from __future__ import annotations

import re
from typing import NamedTuple

from .._base.fs import Root
from .._host import kernels as _kernels
from .checks import cause
from .source import digest, read_source

TREE = "/var/lib/dkms"
SOURCES = "/usr/src"
# Where a run builds aside, each in a directory of its own whose name begins so. On the filesystem of the real tree, so
# that moving is renaming; DKMS does not look at hidden directories.
STAGE = ".noiommu-stage"
# What a run that could not restore everything leaves of what it replaced, until one succeeds.
KEPT = TREE + "/.noiommu-kept"
# How the name of a source ends as long as it is not whole.
HALF = ".new"
# Where distributions make DKMS install: Debian, SUSE, Red Hat.
INSTALL_DIRS = ("updates/dkms", "updates", "extra")

ABSENT, ADDED, BUILT, INSTALLED, DIFFERS = "absent", "added", "built", "installed", "differs"
FAILED = "failed"


class Tree:
    """What DKMS, /usr/src and /lib/modules hold of one module."""

    def __init__(self, root: Root, name: str) -> None:
        self.root = root
        self.name = name

    @property
    def directory(self) -> str:
        """The module's part of the DKMS tree."""
        return "%s/%s" % (TREE, self.name)

    def source_dir(self, version: str) -> str:
        """Return where a version's source belongs."""
        return "%s/%s-%s" % (SOURCES, self.name, version)

    def versions(self) -> list[str]:
        """Return the versions in the DKMS tree, broken ones included."""
        names = self.root.listdir(self.directory)
        return [version for version in names if not version.startswith("kernel-")]

    def source_versions(self) -> list[str]:
        """Return the versions whose source is in /usr/src, known by its dkms.conf."""
        prefix = self.name + "-"
        found = []
        for entry in self.root.listdir(SOURCES):
            conf = self.root.read_text(SOURCES, entry, "dkms.conf") or ""
            if entry.startswith(prefix) and not entry.endswith(HALF) and 'PACKAGE_NAME="%s"' % self.name in conf:
                found.append(entry[len(prefix) :])
        return found

    def half_done(self) -> list[str]:
        """Return the directories that a run which was killed left."""
        stages = [entry for entry in self.root.listdir(TREE) if entry.startswith(STAGE)]
        entries = [entry for entry in self.root.listdir(SOURCES) if entry.startswith(self.name + "-")]
        sources = [entry for entry in entries if entry.endswith(HALF)]
        return ["%s/%s" % (TREE, entry) for entry in stages] + ["%s/%s" % (SOURCES, entry) for entry in sources]

    def kernels(self, version: str) -> list[str]:
        """Return the kernels a version was built for."""
        names = self.root.listdir(self.directory, version)
        return [kernel for kernel in names if kernel not in ("source", "build") and self.built(version, kernel)]

    def built(self, version: str, kernel: str) -> dict[str, str]:
        """Return the built module files: name -> path.

        DKMS does not sync: one that a power cut left empty is none.
        """
        found = {}
        for arch in self.root.listdir(self.directory, version, kernel):
            base = "%s/%s/%s/%s/module" % (self.directory, version, kernel, arch)
            names = [name for name in self.root.listdir(base) if ".ko" in name]
            found.update({name: base + "/" + name for name in names if self.root.read_bytes(base, name)})
        return found

    def installed_files(self, kernel: str) -> list[str]:
        """Return the module's files among a kernel's modules."""
        return [
            "%s/%s/%s/%s" % (_kernels.MODULES, kernel, where, name)
            for where in INSTALL_DIRS
            for name in self.root.listdir(_kernels.MODULES, kernel, where)
            if name.split(".ko")[0] == self.name and ".ko" in name
        ]

    def is_indexed(self, kernel: str) -> bool | None:
        """Whether modprobe finds the module; None for a kernel without an index, as one that was removed in part."""
        index = self.root.read_text(_kernels.MODULES, kernel, "modules.dep")
        return None if index is None else re.search(r"/%s\.ko[.\w]*:" % re.escape(self.name), index) is not None

    def build_failure(self, version: str, kernel: str) -> list[str]:
        """Return why DKMS itself failed to build for a kernel, as after a kernel upgrade; nothing if it did not."""
        log = self.root.read_text(self.directory, version, "build/make.log") or ""
        first = log.partition("\n")[0]
        return cause(log.partition("\n")[2]) if " for kernel %s (" % kernel in first else []

    def source_digest(self, version: str) -> str | None:
        """Return the digest of the source in /usr/src, None without one."""
        source = read_source(self.root.path(self.source_dir(version)))
        return digest(source) if source else None

    def is_added(self, version: str) -> bool:
        """Whether DKMS knows the version and finds its source."""
        path = "%s/%s/source" % (self.directory, version)
        return self.root.exists(path) and self.root.realpath(path) == self.root.realpath(self.source_dir(version))

    def state(self, version: str, kernel: str) -> str:
        """Return how far a version has come for a kernel."""
        built = self.built(version, kernel)
        there = self.installed_files(kernel)
        if not built:
            if there:
                return DIFFERS
            return ADDED if self.is_added(version) else ABSENT
        by_name = {path.rsplit("/", 1)[1]: path for path in there}
        if all(name in by_name and self._same(path, by_name[name]) for name, path in built.items()):
            return DIFFERS if self.is_indexed(kernel) is False else INSTALLED
        return DIFFERS if there else BUILT

    def _same(self, path: str, other: str) -> bool:
        return self.root.read_bytes(path) == self.root.read_bytes(other)


class Loaded(NamedTuple):
    """The module in the running kernel."""

    version: str | None
    users: int
    holders: list[str]


def loaded(root: Root, name: str) -> Loaded | None:
    """Return the loaded module, None if it is not."""
    base = "/sys/module/" + name.replace("-", "_")
    if not root.exists(base, "refcnt"):
        return None
    return Loaded(root.read_text(base, "version"), root.read_int(base, "refcnt") or 0, root.listdir(base, "holders"))
