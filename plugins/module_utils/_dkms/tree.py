# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module's state in the DKMS tree, and the plan that brings it to the declared one.

State is read from files, never by running dkms. What has to be built is built in a staging tree beside the real one,
so that a build that fails leaves the host as it was, with an older version still in place.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.records import dump_json
from .._host import kernels as _kernels
from .checks import cause
from .source import digest, read_source

TREE = "/var/lib/dkms"
SOURCES = "/usr/src"
# On the filesystem of the real tree, so that moving is renaming; DKMS does not look at hidden directories.
STAGE = TREE + "/.noiommu-stage"
# What a run that could not put everything back leaves of what it replaced, until one succeeds.
KEPT = TREE + "/.noiommu-kept"
# How the name of a source ends as long as it is not whole.
HALF = ".new"
# Where distributions make DKMS install: Debian, SUSE, Red Hat.
INSTALL_DIRS = ("updates/dkms", "updates", "extra")

ABSENT, ADDED, BUILT, INSTALLED, DIFFERS = "absent", "added", "built", "installed", "differs"
FAILED = "failed"


def record_path(name: str) -> str:
    """Return where it is noted what files alone do not tell, such as the kernels that a build failed for."""
    return "/var/lib/noiommu/dkms-%s.json" % name


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
        return [one for one in names if not one.startswith("kernel-")]

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
        sources = (one for one in self.root.listdir(SOURCES) if one.startswith(self.name + "-") and one.endswith(HALF))
        return [STAGE] * self.root.exists(STAGE) + ["%s/%s" % (SOURCES, one) for one in sources]

    def kernels(self, version: str) -> list[str]:
        """Return the kernels a version was built for."""
        names = self.root.listdir(self.directory, version)
        return [one for one in names if one not in ("source", "build") and self.built(version, one)]

    def built(self, version: str, kernel: str) -> dict[str, str]:
        """Return the built module files: name -> path.

        DKMS does not sync: one that a power cut left empty is none.
        """
        found = {}
        for arch in self.root.listdir(self.directory, version, kernel):
            base = "%s/%s/%s/%s/module" % (self.directory, version, kernel, arch)
            names = [one for one in self.root.listdir(base) if ".ko" in one]
            found.update({one: base + "/" + one for one in names if self.root.read_bytes(base, one)})
        return found

    def installed_files(self, kernel: str) -> list[str]:
        """Return the module's files among a kernel's modules."""
        return [
            "%s/%s/%s/%s" % (_kernels.MODULES, kernel, where, one)
            for where in INSTALL_DIRS
            for one in self.root.listdir(_kernels.MODULES, kernel, where)
            if one.split(".ko")[0] == self.name and ".ko" in one
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

    def _same(self, one: str, other: str) -> bool:
        return self.root.read_bytes(one) == self.root.read_bytes(other)


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


class Choice(NamedTuple):
    """The kernels to serve, and what is worth saying about the others."""

    kernels: list[str]
    warnings: list[str]


def choose_kernels(root: Root, asked: list[str], skipped: dict[str, str]) -> Choice:
    """Return the kernels to build for.

    Without a list: the running kernel, which is what the host needs now, and every installed one with headers.
    """
    running = _kernels.running(root)
    every = _kernels.installed(root)
    if not asked:
        with_headers = [one for one in every if _kernels.headers(root, one) and one not in skipped]
        without = [one for one in every if one != running and not _kernels.headers(root, one)]
        warnings = [
            "No module for the installed kernel %s: it has no headers. Install %s, or do not boot it."
            % (one, _kernels.headers_package(root, one))
            for one in without
        ]
        warnings += ["No module for the installed kernel %s: %s" % item for item in skipped.items() if item[0] in every]
        return Choice(sorted({running, *with_headers}, key=_kernels.version_key), warnings)
    return Choice(require_installed(root, asked), [])


def require_installed(root: Root, asked: list[str]) -> list[str]:
    """Return the kernels that a list names, `running` and `all` included."""
    running = _kernels.running(root)
    chosen: list[str] = []
    for one in asked:
        if one not in ("running", "all"):
            _kernels.require_release(one, "kernels")
        chosen += {"running": [running], "all": _kernels.installed(root)}.get(one, [one])
    unknown = [one for one in chosen if not root.exists(_kernels.MODULES, one) and one != running]
    if unknown:
        raise HostError(
            "kernel",
            "The kernel %s is not installed." % ", ".join(unknown),
            evidence=["%s has: %s" % (_kernels.MODULES, ", ".join(root.listdir(_kernels.MODULES)) or "nothing")],
            remedy="Name installed kernels, `running` or `all`.",
        )
    return sorted(set(chosen), key=_kernels.version_key)


class Record(NamedTuple):
    """What files alone do not tell."""

    digest: str
    skipped: dict[str, str] = {}  # the kernels that this very source was found not to be for, with the reason
    made_keys: bool = False  # whether DKMS made its signing key for a build of ours
    failed: dict[str, dict[str, Any]] = {}  # the kernels it does not build for: cause, and what was built with
    prebuilt: dict[str, dict[str, Any]] = {}  # the kernels whose module came from an archive: its digest, the files

    @classmethod
    def load(cls, root: Root, name: str) -> Record:
        """Read it. If it is damaged, nothing is lost: the next build finds out again."""
        try:
            stored = json.loads(root.read_text(record_path(name)) or "{}")
            return cls(
                str(stored["digest"]),
                dict(stored["skipped"]),
                bool(stored["made_keys"]),
                dict(stored["failed"]),
                dict(stored["prebuilt"]),
            )
        except (ValueError, KeyError, TypeError):
            return cls("")

    def save(self, root: Root, name: str) -> None:
        """Write it, or remove it if there is nothing to remember."""
        path = record_path(name)
        if any(self[1:]):
            root.write_file(path, dump_json(self._asdict()))
        elif root.remove_file(path):
            root.remove_empty_dir(os.path.dirname(path))


def built_with(root: Root, kernel: str) -> list[str]:
    """Return what tells one set of headers and compiler from another, without running anything."""
    paths = ["%s/Module.symvers" % (_kernels.headers(root, kernel) or ""), _kernels.compiler(root, kernel) or ""]
    found = []
    for path in map(root.realpath, paths):
        entry = os.stat(root.path(path)) if root.exists(path) else None
        found.append("%s %s" % (path, "%d %d" % (entry.st_size, entry.st_mtime) if entry else "absent"))
    return found


class Plan:
    """What one run shall do to have a version there. Made from files alone, for check mode and real run alike."""

    def __init__(self, root: Root, name: str, version: str, wanted: str) -> None:
        self.root = root
        self.tree = Tree(root, name)
        self.version = version
        self.digest = wanted
        self.record = Record.load(root, name)
        self.explicit = False
        self.half_done = bool(self.tree.half_done())
        self.fresh = False  # whether all has to be made anew
        self.kernels: list[str] = []
        self.build: list[str] = []
        self.install: list[str] = []
        self.others: list[str] = []  # versions to remove
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, list[str]] = {}
        self.warnings: list[str] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}

    def header(self) -> list[str]:
        """The lines that the declared state has in the diff above the kernels."""
        return ["source %s-%s %s" % (self.tree.name, self.version, self.digest)]

    def diff(self) -> dict[str, str]:
        """Return what differs in the form that Ansible prints."""
        name = self.tree.name
        there = {*self.tree.versions(), *self.tree.source_versions()}
        old = [one for one in sorted({*self.others, self.version}, key=lambda one: one == self.version) if one in there]
        before = ["source %s-%s %s" % (name, one, self.tree.source_digest(one) or "missing") for one in old]
        return {
            "before_header": "DKMS " + name,
            "after_header": "DKMS " + name,
            "before": _lines([*before, *_states(self.before)]),
            "after": _lines([*self.header(), *_states(self.after)]),
        }

    def warn_loaded(self) -> None:
        """Mention another version that is still loaded."""
        now = loaded(self.root, self.tree.name)
        if now is not None and now.version != self.version:
            self.warnings.append(
                "The running kernel still has version %s of %s loaded; %s is used once that is unloaded, or after the"
                " next boot." % (now.version or "unknown", self.tree.name, self.version)
            )


class PresentPlan(Plan):
    """What one run shall do to have a version built and installed on the host itself."""

    def __init__(self, root: Root, name: str, version: str, wanted: str, asked: list[str]) -> None:
        super().__init__(root, name, version, wanted)
        self.explicit = bool(asked)
        # Killed between the last step and its record.
        self.half_done |= self.record.digest not in ("", wanted)
        self.skipped = self.record.skipped if not asked and self.record.digest == wanted else {}
        choice = choose_kernels(root, asked, self.skipped)
        self.failed = self._known_failures(choice.kernels)
        self.kernels = [one for one in choice.kernels if one not in self.failed]
        self.warnings = choice.warnings
        self.had_digest = self.tree.source_digest(version)
        # The tree is no good for another source, nor if DKMS lost track of it.
        self.fresh = self.had_digest != wanted or not self.tree.is_added(version)
        self.others = sorted({*self.tree.versions(), *self.tree.source_versions()} - {version})
        states = {kernel: self.tree.state(version, kernel) for kernel in self.kernels}
        self.before = {
            kernel: DIFFERS if self.fresh and state not in (ABSENT, ADDED) else state
            for kernel, state in states.items()
        }
        self.before.update(dict.fromkeys(self.failed, FAILED))
        self.after = dict.fromkeys(self.kernels, INSTALLED)
        self.after.update(dict.fromkeys(self.failed, FAILED))
        self.build = [one for one in self.kernels if self.fresh or not self.tree.built(version, one)]
        self.install = [one for one in self.kernels if self.before[one] != INSTALLED]
        self.warn_loaded()

    def _known_failures(self, kernels: list[str]) -> dict[str, list[str]]:
        """The kernels that there is no use in building for again: same source, headers and compiler as when it failed.

        Never the running one, and never one that was asked for by name.
        """
        if self.explicit or self.record.digest != self.digest:
            return {}
        running = _kernels.running(self.root)
        return {
            kernel: entry["cause"]
            for kernel, entry in self.record.failed.items()
            if kernel in kernels
            and kernel != running
            and not self.tree.built(self.version, kernel)
            and entry["built_with"] == built_with(self.root, kernel)
        }

    def failures(self) -> dict[str, list[str]]:
        """The kernels without the module because a build failed, this collection's or DKMS's own, with the cause."""
        found = dict(self.failed)
        noted = self.record.failed if self.record.digest == self.digest else {}
        for kernel in self.build:
            why = self.tree.build_failure(self.version, kernel) or noted.get(kernel, {}).get("cause")
            if why:
                found[kernel] = why
        return found

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.fresh or self.others or self.install or self.record.prebuilt or self.half_done)

    @property
    def source_needed(self) -> bool:
        """Whether the host lacks the source."""
        return self.had_digest != self.digest


class AbsentPlan:
    """What one run shall do to have nothing of the module left."""

    def __init__(self, root: Root, name: str) -> None:
        self.root = root
        self.tree = Tree(root, name)
        self.versions = sorted({*self.tree.versions(), *self.tree.source_versions()})
        self.loaded = loaded(root, name)
        self.warnings: list[str] = []
        kernels = {one for version in self.versions for one in self.tree.kernels(version)}
        self.leftovers = {one: self.tree.installed_files(one) for one in root.listdir(_kernels.MODULES)}
        kernels |= {one for one, files in self.leftovers.items() if files}
        # A power cut may bring an index back that has the module, and no module.
        self.misled = [one for one, files in self.leftovers.items() if not files and self.tree.is_indexed(one)]
        prebuilt = Record.load(root, name).prebuilt
        self.before = {
            kernel: max(
                (self.tree.state(version, kernel) for version in self.versions),
                key=(ABSENT, ADDED, BUILT, DIFFERS, INSTALLED).index,
                default=INSTALLED if kernel in prebuilt else DIFFERS,
            )
            for kernel in sorted(kernels, key=_kernels.version_key)
        }
        self.after = dict.fromkeys(self.before, ABSENT)

    @property
    def changed(self) -> bool:
        """Whether anything is there."""
        noted = self.root.exists(record_path(self.tree.name)) or self.root.exists(KEPT)
        return bool(self.versions or self.before or self.loaded or self.misled or noted or self.tree.half_done())

    def refuse_if_used(self) -> None:
        """Refuse while somebody uses the module."""
        now = self.loaded
        if now is None or now.users == 0:
            return
        base = "/sys/module/%s" % self.tree.name.replace("-", "_")
        raise HostError(
            "module_in_use",
            "The module %s is loaded and in use." % self.tree.name,
            evidence=["%s/refcnt: %d" % (base, now.users), "%s/holders: %s" % (base, ", ".join(now.holders) or "none")],
            remedy="Give its devices back first (baremetal.noiommu.vfio_binding with state: absent), after stopping the"
            " applications that have them open.",
        )

    def diff(self) -> dict[str, str]:
        """Return what differs in the form that Ansible prints."""
        name = self.tree.name
        before = ["loaded"] if self.loaded else []
        before += ["source %s-%s %s" % (name, one, self.tree.source_digest(one) or "missing") for one in self.versions]
        before += ["kernel %s: modules.dep names it" % one for one in self.misled]
        return {
            "before_header": "DKMS " + name,
            "after_header": "DKMS " + name,
            "before": _lines([*before, *_states(self.before)]),
            "after": _lines(_states(self.after)),
        }


def _states(states: dict[str, str]) -> list[str]:
    return ["kernel %s: %s" % item for item in states.items()]


def _lines(lines: list[Any]) -> str:
    return "".join("%s\n" % line for line in lines)
