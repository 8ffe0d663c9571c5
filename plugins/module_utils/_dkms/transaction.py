# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run's changes to the module on the host; if the run fails, all of them are undone."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial
from typing import Callable

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._base.undo import UndoStack
from . import checks, signing
from .remove import drop_half_done, drop_installed, drop_kept, remove_version
from .tree import INSTALLED, KEPT, STAGE, TREE, Tree

KEYS = signing.DKMS_PAIR


class DkmsTransaction:
    """Changes the module, and undoes everything if a step fails. What it builds or replaces is kept in a stage."""

    def __init__(self, root: Root, runner: Runner, tree: Tree, version: str) -> None:
        self._root, self._runner = root, runner
        self._tree, self._version = tree, version
        self._stage: str | None = None
        self.undo = UndoStack()

    @property
    def stage(self) -> str:
        """This run's own stage."""
        if self._stage is None:
            drop_half_done(self._root, self._tree)
            self._root.make_dirs(TREE)
            path = tempfile.mkdtemp(prefix=STAGE + "-", dir=self._root.path(TREE))
            self._stage = "%s/%s" % (TREE, os.path.basename(path))
        return self._stage

    def run(self, action: Callable[[], None], keep_stage: bool = False) -> bool:
        """Run an action, and undo it if it fails; return whether DKMS made its key meanwhile."""
        had_keys = any(self._root.exists(path) for path in KEYS)
        if not had_keys:  # Made by a failed attempt, so enrolled nowhere.
            self.undo.push("DKMS's signing key", self._remove_keys)
        done = False
        try:
            action()
            done = True
        except (HostError, OSError) as exc:
            raise self._roll_back(exc) from exc
        finally:
            if not (done and keep_stage):
                self.drop_stage()
        drop_kept(self._root)
        return not had_keys and self._root.exists(KEYS[0])

    def _remove_keys(self) -> None:
        for path in KEYS:
            self._root.remove_file(path)

    def drop_stage(self) -> None:
        """Remove what was built aside."""
        drop_half_done(self._root, self._tree)

    def _roll_back(self, failure: HostError | OSError) -> HostError:
        """Undo what was done, and return the failure with what became of the host."""
        problems = self.undo.unwind()
        if problems:
            problems += self._keep_old()
        error = (
            failure
            if isinstance(failure, HostError)
            else HostError(
                "file",
                "Installing %s %s failed." % (self._tree.name, self._version),
                evidence=[str(failure)],
                remedy="Make the filesystem that holds the path usable, then run again.",
            )
        )
        outcome = "NOT everything could be restored" if problems else "the host is as it was"
        error.message = "%s; %s." % (error.message.rstrip("."), outcome)
        error.evidence += problems
        return error

    def _keep_old(self) -> list[str]:
        """Move the copies of what was replaced out of the stage before it is removed; say where they are."""
        old = "%s/old" % self._stage
        if (
            self._stage and self._root.exists(old) and not self._root.exists(KEPT)
        ):  # an earlier copy is the version that worked last
            try:
                self._root.rename(old, KEPT)
            except OSError as exc:
                return ["NOT kept: the copies in %s: %s" % (old, exc)]
        return ["%s: copies of what was replaced, until a run succeeds" % KEPT] * self._root.exists(KEPT)

    # --- what can be undone ---

    def remove_installed(self, kernel: str) -> None:
        """Remove the module's files from a kernel."""
        kept = {path: self._root.read_bytes(path) or b"" for path in self._tree.installed_files(kernel)}
        self.undo.push("the module of kernel " + kernel, partial(self._restore_installed, kernel, kept))
        drop_installed(self._root, self._runner, self._tree, [kernel])

    def _restore_installed(self, kernel: str, kept: dict[str, bytes]) -> None:
        for path, content in kept.items():
            self._root.write_file(path, content)
        done = self._runner.run("depmod", kernel) if kept else None
        if done is not None and done.rc != 0 and self._tree.is_indexed(kernel) is False:
            raise left_behind("depmod %s: rc %d: %s" % (kernel, done.rc, done.stderr.strip()))

    def set_aside(self, version: str) -> None:
        """Remove a version from the host, keeping what it takes to restore it."""
        tree = self._tree
        kernels = [kernel for kernel in tree.kernels(version) if tree.state(version, kernel) == INSTALLED]
        moves = [
            ("%s/%s" % (tree.directory, version), "%s/old/tree/%s" % (self.stage, version)),
            (tree.source_dir(version), "%s/old/source/%s" % (self.stage, version)),
        ]
        for here, there in moves:
            if self._root.exists(here):
                shutil.copytree(self._root.path(here), self._root.path(there), symlinks=True)
        self.undo.push("version %s in DKMS" % version, partial(self._restore_version, version, moves, kernels))
        remove_version(self._root, self._runner, tree, version)

    def _restore_version(self, version: str, moves: list[tuple[str, str]], kernels: list[str]) -> None:
        for here, there in moves:
            if self._root.exists(there):
                shutil.rmtree(self._root.path(here), ignore_errors=True)
                shutil.copytree(self._root.path(there), self._root.path(here), symlinks=True)
        for kernel in kernels:
            done = self._runner.run("dkms", "install", "-m", self._tree.name, "-v", version, "-k", kernel)
            if self._tree.state(version, kernel) != INSTALLED:
                raise left_behind("dkms install for kernel %s: rc %d: %s" % (kernel, done.rc, done.stderr.strip()))

    def index(self, kernel: str) -> None:
        """Update a kernel's index, so that modprobe finds what was installed."""
        done = self._runner.run("depmod", kernel)
        if done.rc != 0:
            raise HostError(
                "install_failed",
                "Indexing the modules of kernel %s failed." % kernel,
                evidence=["depmod %s: rc %d" % (kernel, done.rc), *checks.cause(done.stdout + "\n" + done.stderr)],
                remedy="Fix the error above and run again.",
            )


def left_behind(evidence: str) -> HostError:
    """Return the error of an undo step that failed."""
    return HostError("undo", evidence)
