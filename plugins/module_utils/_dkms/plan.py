# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which kernels a module is for, and the plan that brings the host to the declared version of it."""

from __future__ import annotations

from typing import NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._host import kernels as _kernels
from . import upkeep
from .record import DkmsRecord, built_with
from .tree import ABSENT, ADDED, DIFFERS, FAILED, INSTALLED, Tree, loaded


class KernelChoice(NamedTuple):
    """The kernels to serve, and warnings about the others."""

    kernels: list[str]
    warnings: list[str]


def choose_kernels(root: Root, asked: list[str], skipped: dict[str, str]) -> KernelChoice:
    """Return the kernels to build for.

    Without a list: the running kernel, which is what the host needs now, and every installed one with headers.
    """
    running = _kernels.running(root)
    every = _kernels.installed(root)
    if not asked:
        with_headers = [kernel for kernel in every if _kernels.headers(root, kernel) and kernel not in skipped]
        without = [kernel for kernel in every if kernel != running and not _kernels.headers(root, kernel)]
        warnings = [
            "No module for the installed kernel %s: it has no headers. Install %s, or do not boot it."
            % (kernel, _kernels.headers_package(root, kernel))
            for kernel in without
        ]
        warnings += ["No module for the installed kernel %s: %s" % item for item in skipped.items() if item[0] in every]
        return KernelChoice(sorted({running, *with_headers}, key=_kernels.version_key), warnings)
    return KernelChoice(require_installed(root, asked), [])


def require_installed(root: Root, asked: list[str]) -> list[str]:
    """Return the kernels that a list names, `running` and `all` included."""
    running = _kernels.running(root)
    chosen: list[str] = []
    for name in asked:
        if name not in ("running", "all"):
            _kernels.require_release(name, "kernels")
        chosen += {"running": [running], "all": _kernels.installed(root)}.get(name, [name])
    unknown = [kernel for kernel in chosen if not root.exists(_kernels.MODULES, kernel) and kernel != running]
    if unknown:
        raise HostError(
            "kernel",
            "The kernel %s is not installed." % ", ".join(unknown),
            evidence=["%s has: %s" % (_kernels.MODULES, ", ".join(root.listdir(_kernels.MODULES)) or "nothing")],
            remedy="Name installed kernels, `running` or `all`.",
        )
    return sorted(set(chosen), key=_kernels.version_key)


class DkmsPlan:
    """What one run does to bring about a version. Made from files alone, for check mode and real run alike."""

    def __init__(self, root: Root, name: str, version: str, wanted: str) -> None:
        self.root = root
        self.tree = Tree(root, name)
        self.version = version
        self.digest = wanted
        self.record = DkmsRecord.load(root, name)
        self.explicit = False
        self.half_done = bool(self.tree.half_done())
        self.fresh = False  # whether everything has to be built again
        self.kernels: list[str] = []
        self.build: list[str] = []
        self.install: list[str] = []
        self.others: list[str] = []  # versions to remove
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, list[str]] = {}
        self.warnings: list[str] = []
        self.states_before: dict[str, str] = {}
        self.states_after: dict[str, str] = {}

    def header(self) -> list[str]:
        """The lines that the declared state has in the diff above the kernels."""
        return ["source %s-%s %s" % (self.tree.name, self.version, self.digest)]

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        name = self.tree.name
        there = {*self.tree.versions(), *self.tree.source_versions()}
        old = [version for version in [*sorted({*self.others} - {self.version}), self.version] if version in there]
        before = ["source %s-%s %s" % (name, version, self.tree.source_digest(version) or "missing") for version in old]
        after = [*self.header(), *show_states(self.states_after)]
        return difference(name, [*before, *show_states(self.states_before)], after)

    def warn_loaded(self) -> None:
        """Mention another version that is still loaded."""
        now = loaded(self.root, self.tree.name)
        if now is not None and now.version != self.version:
            self.warnings.append(
                "The running kernel still has version %s of %s loaded; %s is used once that is unloaded, or after the"
                " next boot." % (now.version or "unknown", self.tree.name, self.version)
            )


class PresentPlan(DkmsPlan):
    """What one run does to have a version built and installed on the host itself."""

    def __init__(self, root: Root, name: str, version: str, wanted: str, asked: list[str]) -> None:
        super().__init__(root, name, version, wanted)
        self.explicit = bool(asked)
        # A run was killed between its last step and its record.
        self.half_done |= self.record.digest not in ("", wanted)
        self.skipped = self.record.skipped if not asked and self.record.digest == wanted else {}
        choice = choose_kernels(root, asked, self.skipped)
        self.failed = self._known_failures(choice.kernels)
        self.kernels = [kernel for kernel in choice.kernels if kernel not in self.failed]
        self.warnings = [*choice.warnings, *upkeep.warnings(root, name, version)]
        self.had_digest = self.tree.source_digest(version)
        # The tree is useless for another source, and if DKMS lost track of it.
        self.fresh = self.had_digest != wanted or not self.tree.is_added(version)
        self.others = sorted({*self.tree.versions(), *self.tree.source_versions()} - {version})
        states = {kernel: self.tree.state(version, kernel) for kernel in self.kernels}
        self.states_before = {
            kernel: DIFFERS if self.fresh and state not in (ABSENT, ADDED) else state
            for kernel, state in states.items()
        }
        self.states_before.update(dict.fromkeys(self.failed, FAILED))
        self.states_after = dict.fromkeys(self.kernels, INSTALLED)
        self.states_after.update(dict.fromkeys(self.failed, FAILED))
        self.build = [kernel for kernel in self.kernels if self.fresh or not self.tree.built(version, kernel)]
        self.install = [kernel for kernel in self.kernels if self.states_before[kernel] != INSTALLED]
        self.warn_loaded()

    def _known_failures(self, kernels: list[str]) -> dict[str, list[str]]:
        """The kernels not worth another build: same source, headers and compiler as when it failed.

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


def show_states(states: dict[str, str]) -> list[str]:
    """Return the lines that a diff has for the kernels."""
    return ["kernel %s: %s" % item for item in states.items()]


def difference(name: str, before: list[str], after: list[str]) -> list[dict[str, str]]:
    """Return the one difference of a module in the form that Ansible prints."""
    texts = ["".join("%s\n" % line for line in lines) for lines in (before, after)]
    header = "DKMS " + name
    return [{"before_header": header, "after_header": header, "before": texts[0], "after": texts[1]}]
