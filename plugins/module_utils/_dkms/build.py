# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Building a module by DKMS in a stage beside the real tree, so that a build that fails leaves the host as it was."""

from __future__ import annotations

import os
import re
import shutil
from typing import Callable, Iterable

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from . import checks, signing
from .source import Source, digest, read_source
from .tree import STAGE, TREE

# How DKMS ends where BUILD_EXCLUSIVE_* excludes a kernel; before 3.0.11 by a code that has other meanings too.
_EXCLUDED, _EXCLUDED_BEFORE = 77, 9


class StagedBuild:
    """The builds of one source for several kernels, in a stage of their own."""

    def __init__(
        self, root: Root, runner: Runner, name: str, version: str, stage: str, is_needed: Callable[[str], bool]
    ) -> None:
        """``is_needed`` says for which kernels a failure is an error rather than an entry in :attr:`failed`."""
        self._root, self._runner = root, runner
        self._name, self._version = name, version
        self._stage, self._is_needed = stage, is_needed
        self._signing = signing.read(root)
        self.skipped: dict[str, str] = {}  # kernels that the source does not support
        self.failed: dict[str, list[str]] = {}  # kernels that a build failed for, with the cause

    @property
    def home(self) -> str:
        """Where the builds are, one directory a kernel."""
        return "%s/tree/%s/%s" % (self._stage, self._name, self._version)

    def build(self, source: Source, kernels: Iterable[str]) -> None:
        """Build for every kernel."""
        where = self._stage + "/source/%s-%s" % (self._name, self._version)
        write_source(self._root, where, source)
        self._root.make_dirs(self._stage + "/tree")
        trees = ("--dkmstree", self._stage + "/tree", "--sourcetree", self._stage + "/source")
        self._add(*trees)
        for kernel in kernels:
            done = self._runner.run("dkms", "build", *trees, "-m", self._name, "-v", self._version, "-k", kernel)
            said = done.stdout + "\n" + done.stderr
            if done.rc == _EXCLUDED or (done.rc == _EXCLUDED_BEFORE and "BUILD_EXCLUSIVE" in said):
                self.skipped[kernel] = self._exclusion(kernel, said)
            elif done.rc != 0:
                error = self._build_error(kernel, done.rc, said)
                if self._is_needed(kernel):
                    raise error
                # The host needs the module for the running kernel; a failure for another one is only reported.
                self.failed[kernel] = error.evidence
            elif self._signing.enforced:
                self._require_signature(kernel, said)
        self._require_source(where, source)

    def _add(self, *trees: str) -> None:
        done = self._runner.run("dkms", "add", *trees, "-m", self._name, "-v", self._version)
        if done.rc != 0:
            raise HostError(
                "dkms",
                "dkms add failed.",
                evidence=["rc %d" % done.rc, *checks.cause(done.stdout + "\n" + done.stderr)],
                remedy="Fix the error above and run again.",
            )

    def _require_source(self, where: str, source: Source) -> None:
        """Refuse a build whose source was replaced meanwhile, for example by another builder."""
        if digest(read_source(self._root.path(where))) != digest(source):
            raise HostError(
                "build_mixed",
                "The source changed while it was being built.",
                evidence=["%s: not the source that was sent" % where],
                remedy="Find out what else writes to %s on this host, then run again." % TREE,
            )

    def module_files(self, kernel: str) -> list[str]:
        """Return the paths of the module files that were built for a kernel."""
        base = "%s/%s" % (self.home, kernel)
        return [
            "%s/%s/module/%s" % (base, arch, name)
            for arch in self._root.listdir(base)
            for name in self._root.listdir(base, arch, "module")
            if ".ko" in name
        ]

    def _require_signature(self, kernel: str, said: str) -> None:
        """Refuse an unsigned module: DKMS carries on without a signature if it cannot sign."""
        for path in self.module_files(kernel):
            if signing.is_signed(self._root.read_bytes(path) or b"", path) is False:
                reasons = [line for line in said.splitlines() if re.search(r"sign|certificate|key", line, re.I)]
                raise HostError(
                    "not_signed",
                    "This kernel loads signed modules only, and DKMS did not sign the one for %s." % kernel,
                    evidence=[*self._signing.enforced_by, *(reasons or ["%s: no signature" % os.path.basename(path)])],
                    remedy="Make sure that DKMS finds sign-file (Debian: in this kernel's linux-kbuild) and its key"
                    " (/etc/dkms/framework.conf), then run again.",
                )

    def _exclusion(self, kernel: str, said: str) -> str:
        reason = "dkms.conf excludes it: " + (" ".join(said.split()) or "no reason given")
        if self._is_needed(kernel):
            raise HostError(
                "kernel_excluded",
                "The source does not support the kernel %s." % kernel,
                evidence=[reason],
                remedy="Boot a kernel that the module supports (BUILD_EXCLUSIVE_* in its dkms.conf says which).",
            )
        return reason

    def _build_error(self, kernel: str, rc: int, said: str) -> HostError:
        logs = [
            os.path.join(where, "make.log")
            for where, _dirs, names in os.walk(self._root.path(self._stage + "/tree"))
            if "make.log" in names
        ]
        log = ""
        for path in logs:
            with open(path, encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            if "/build/" in path or " for kernel %s (" % kernel in text:
                log += text
        return HostError(
            "build_failed",
            "Building %s %s for kernel %s failed." % (self._name, self._version, kernel),
            evidence=["dkms build: rc %d" % rc, *checks.cause(_shorten_paths(log or said))],
            remedy="Fix the error above and run again.",
        )


def _shorten_paths(log: str) -> str:
    """Remove the stage's paths from a message: its directories are gone when somebody reads it."""
    return re.sub(re.escape("%s/%s" % (TREE, STAGE)) + r"[^/\s]*/tree/\S*?/build/", "", log)


def write_source(root: Root, directory: str, source: Source) -> None:
    """Write a source's files and no others."""
    shutil.rmtree(root.path(directory), ignore_errors=True)
    for path, content in source.items():
        root.write_file("%s/%s" % (directory, path), content)
