# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installing a module by DKMS: build aside, then swap."""

from __future__ import annotations

import shutil
from functools import partial

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._host import kernels as _kernels
from . import checks, signing
from .build import StagedBuild, write_source
from .plan import PresentPlan
from .record import DkmsRecord, built_with, record_path
from .remove import remove_version
from .source import Source, digest, read_conf, read_source
from .transaction import KEYS, DkmsTransaction, left_behind
from .tree import FAILED, HALF, INSTALLED


def require_source(source: Source, where: str, expected: tuple[str, str, str]) -> None:
    """Refuse a source that does not have the expected name, version and digest."""
    found = digest(source)
    conf = read_conf(source, where)
    if (conf.name, conf.version, found) != expected:
        raise HostError(
            "archive",
            "The source that arrived is not the one that was declared.",
            evidence=[
                "digest %s, declared %s" % (found, expected[2]),
                "%s %s, declared %s %s" % (conf.name, conf.version, *expected[:2]),
            ],
            remedy="Run again; if that does not help, declare name and version as the source's dkms.conf has them.",
        )


class Installer:
    """Has DKMS build and install what a plan says."""

    def __init__(self, root: Root, runner: Runner, plan: PresentPlan, sent: Source | None = None) -> None:
        """``sent`` is the source, if the host lacks it."""
        self._root, self._runner = root, runner
        self._plan, self._tree = plan, plan.tree
        self._sent = sent
        self._transaction = DkmsTransaction(root, runner, plan.tree, plan.version)
        self._build: StagedBuild | None = None

    def check(self) -> None:
        """Refuse what cannot work, before anything changes and before the source is sent."""
        plan = self._plan
        unsigned = signing.refusal(self._root, signing.read(self._root))
        if unsigned is not None:
            raise unsigned
        problem = checks.lacking(self._root, plan.build or plan.install)
        if problem is not None:
            raise problem
        checks.require_space(self._root, plan.install)
        checks.require_writable(self._root, plan.install)
        if plan.build:
            checks.require_compiler(self._root, self._runner, plan.build)

    # --- the change ---

    @property
    def skipped(self) -> dict[str, str]:
        """Kernels that the source does not support, with the reason."""
        return self._build.skipped if self._build else {}

    @property
    def failed(self) -> dict[str, list[str]]:
        """Kernels other than the running one that a build failed for, with the cause."""
        return self._build.failed if self._build else {}

    @property
    def failures(self) -> dict[str, list[str]]:
        """Every kernel that is left without the module, with the cause."""
        return {**self._plan.failed, **self.failed} if self._build else self._plan.failures()

    @property
    def changed(self) -> bool:
        """Whether anything differs; after the run, whether it changed more than the record."""
        plan = self._plan
        served = [kernel for kernel in plan.install if kernel not in self.skipped and kernel not in self.failed]
        return bool(plan.fresh or plan.others or plan.record.prebuilt or plan.half_done or served)

    @property
    def warnings(self) -> list[str]:
        """What the operator must know of the installed kernels."""
        excluded = ["No module for the installed kernel %s: %s" % item for item in self.skipped.items()]
        return self._plan.warnings + excluded

    def before(self) -> dict[str, str]:
        """Return the module's state for each kernel before the run."""
        return self._plan.states_before

    def after(self) -> dict[str, str]:
        """Return the same after the run."""
        return {
            kernel: FAILED if kernel in self.failed else state
            for kernel, state in self._plan.states_after.items()
            if kernel not in self.skipped
        }

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        return self._plan.diff()

    def apply(self) -> None:
        """Build, swap and install for every kernel that it can be built for."""
        plan, name = self._plan, self._tree.name
        home = self._tree.source_dir(plan.version)
        source = self._sent if self._sent is not None else read_source(self._root.path(home))
        require_source(source, home, (name, plan.version, plan.digest))
        made_keys = self._transaction.run(lambda: self._bring_about(source))
        record = DkmsRecord.load(self._root, name)  # with the keys that were recorded meanwhile
        failed = {kernel: plan.record.failed[kernel] for kernel in plan.failed}
        for kernel, why in self.failed.items():
            failed[kernel] = {"cause": why, "built_with": built_with(self._root, kernel)}
        skipped = {**plan.skipped, **self.skipped}
        DkmsRecord(plan.digest, skipped, record.made_keys or made_keys, failed).save(self._root, name)

    def _bring_about(self, source: Source) -> None:
        plan = self._plan
        if plan.build:
            self._note_keys()
            self._build = StagedBuild(
                self._root, self._runner, self._tree.name, plan.version, self._transaction.stage, self._is_needed
            )
            self._build.build(source, plan.build)
        self._swap(source, self._build)
        for kernel in plan.record.prebuilt:  # DKMS would take these for the distribution's and keep them
            self._transaction.remove_installed(kernel)
        for kernel in plan.install:
            if kernel not in self.skipped and kernel not in self.failed:
                self._install(kernel)

    def _is_needed(self, kernel: str) -> bool:
        return self._plan.explicit or kernel == _kernels.running(self._root)

    def _note_keys(self) -> None:
        """Record that DKMS is about to make its signing key, so that a killed run can be rolled back."""
        root, record, name = self._root, self._plan.record, self._tree.name
        if any(root.read_bytes(path) == b"" for path in KEYS):  # by a power cut: DKMS does not sync
            for path in KEYS:
                root.remove_file(path)
        if not any(root.exists(path) for path in KEYS):
            self._transaction.undo.push(record_path(name), lambda: record.save(root, name))
            record._replace(digest=self._plan.digest, made_keys=True).save(root, name)

    def _swap(self, source: Source, build: StagedBuild | None) -> None:
        """Put what was built into the DKMS tree, and remove what it replaces."""
        plan, tree, undo = self._plan, self._tree, self._transaction.undo
        gone = [*plan.others, plan.version] if plan.fresh else plan.others
        for version in gone:
            if version in tree.versions() or version in tree.source_versions():
                self._transaction.set_aside(version)
        if plan.fresh:
            target = tree.source_dir(plan.version)
            undo.push("the new source", partial(self._remove_tree, target))
            # In two steps, so that a killed run leaves no incomplete source under its final name.
            write_source(self._root, target + HALF, source)
            shutil.rmtree(self._root.path(target), ignore_errors=True)
            self._root.rename(target + HALF, target)
        if build is None:
            return
        home = "%s/%s" % (tree.directory, plan.version)
        self._root.make_dirs(home)
        if plan.fresh:
            undo.push("the new version", partial(self._remove_version, plan.version))
            self._root.write_link(home + "/source", tree.source_dir(plan.version))
        for kernel in self._root.listdir(build.home):
            if kernel not in plan.build:
                continue
            if not plan.fresh:
                undo.push("the module of kernel " + kernel, partial(self._remove_kernel, plan.version, kernel))
                shutil.rmtree(self._root.path(home, kernel), ignore_errors=True)
            self._root.rename("%s/%s" % (build.home, kernel), "%s/%s" % (home, kernel))

    def _remove_version(self, version: str) -> None:
        remove_version(self._root, self._runner, self._tree, version)
        if version in self._tree.versions():
            raise left_behind("%s/%s is still there" % (self._tree.directory, version))

    def _remove_kernel(self, version: str, kernel: str) -> None:
        done = self._runner.run("dkms", "remove", "-m", self._tree.name, "-v", version, "-k", kernel)
        if self._root.exists(self._tree.directory, version, kernel):
            raise left_behind("dkms remove for kernel %s: rc %d: %s" % (kernel, done.rc, done.stderr.strip()))

    def _remove_tree(self, path: str) -> None:
        if self._root.exists(path):
            shutil.rmtree(self._root.path(path))

    def _install(self, kernel: str) -> None:
        name, version = self._tree.name, self._plan.version
        done = self._runner.run("dkms", "install", "--force", "-m", name, "-v", version, "-k", kernel)
        if self._tree.is_indexed(kernel) is False:
            self._transaction.index(kernel)
        written = [*self._tree.built(version, kernel).values(), *self._tree.installed_files(kernel), *KEYS]
        for path in filter(self._root.exists, written):
            self._root.sync(path)
        state = self._tree.state(version, kernel)
        if done.rc != 0 or state != INSTALLED:
            raise HostError(
                "install_failed",
                "Installing %s %s for kernel %s failed." % (name, version, kernel),
                evidence=["dkms install: rc %d" % done.rc, *checks.cause(done.stdout + "\n" + done.stderr)],
                remedy="Fix the error above and run again.",
            )
