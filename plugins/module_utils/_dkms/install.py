# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a DKMS plan: build aside, then swap, and on any failure put everything back."""

from __future__ import annotations

import os
import re
import shutil
from typing import Callable

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._base.undo import UndoStack
from .._host import kernels as _kernels
from . import checks as checks
from . import signing
from .source import Source, digest, read_conf, read_source
from .tree import HALF, INSTALLED, KEPT, STAGE, TREE, AbsentPlan, Plan, Record, Tree, built_with, record_path

_KEYS = signing.DKMS_PAIR
# How DKMS ends where BUILD_EXCLUSIVE_* excludes a kernel; before 3.0.11 by a code that has other meanings too.
_EXCLUDED, _EXCLUDED_BEFORE = 77, 9


class Installer:
    """Brings a present plan about."""

    def __init__(self, root: Root, runner: Runner, plan: Plan) -> None:
        self._root = root
        self._runner = runner
        self._plan = plan
        self._tree = plan.tree
        self._undo = UndoStack()
        self._signing = signing.read(root)
        self.skipped: dict[str, str] = {}  # kernels that the source turned out not to be for
        self.failed: dict[str, list[str]] = {}  # kernels other than the running one that a build failed for: the cause

    def check(self) -> None:
        """Refuse what cannot work, before anything changes and before the source is sent."""
        plan = self._plan
        unsigned = signing.refusal(self._root, self._signing)
        if unsigned is not None:
            raise unsigned
        problem = checks.lacking(self._root, plan.build or plan.install)
        if problem is not None:
            raise problem
        checks.require_space(self._root, plan.install)
        checks.require_writable(self._root, plan.install)
        if plan.build:
            checks.require_compiler(self._root, self._runner, plan.build)

    @property
    def changed(self) -> bool:
        """Whether the run changed more than what is remembered."""
        plan = self._plan
        served = [one for one in plan.install if one not in self.skipped and one not in self.failed]
        return bool(plan.fresh or plan.others or plan.record.prebuilt or plan.half_done or served)

    def run(self, sent: Source | None) -> None:
        """Build, swap and install for every kernel that it can be built for."""
        source = sent if sent is not None else read_source(self._real(self._tree.source_dir(self._plan.version)))
        self._verify_source(source)
        made_keys = self.transact(lambda: self._bring_about(source))
        record = Record.load(self._root, self._tree.name)  # with the keys that were noted meanwhile
        failed = {one: self._plan.record.failed[one] for one in self._plan.failed}
        for kernel, why in self.failed.items():
            failed[kernel] = {"cause": why, "built_with": built_with(self._root, kernel)}
        Record(self._plan.digest, {**self._plan.skipped, **self.skipped}, record.made_keys or made_keys, failed).save(
            self._root, self._tree.name
        )

    def _bring_about(self, source: Source) -> None:
        if self._plan.build:
            self._note_keys()
        self._build(source)
        self._swap(source)
        for kernel in self._plan.record.prebuilt:  # DKMS would take them for the distribution's, and keep them
            self._drop(kernel)
        for kernel in self._plan.install:
            if kernel not in self.skipped and kernel not in self.failed:
                self._install(kernel)

    def _note_keys(self) -> None:
        """Note that DKMS is about to make its signing key, so that a run that is killed can be taken back."""
        root, record, name = self._root, self._plan.record, self._tree.name
        if any(root.read_bytes(path) == b"" for path in _KEYS):  # by a power cut: DKMS does not sync
            for path in _KEYS:
                root.remove_file(path)
        if not any(root.exists(path) for path in _KEYS):
            self._undo.push(record_path(name), lambda: record.save(root, name))
            record._replace(digest=self._plan.digest, made_keys=True).save(root, name)

    def transact(self, action: Callable[[], None], keep_stage: bool = False) -> bool:
        """Do something of which nothing is left if it fails; return whether DKMS made its key meanwhile."""
        had_keys = any(self._root.exists(path) for path in _KEYS)
        if not had_keys:  # Made by a failed attempt, so enrolled nowhere.
            self._undo.push("DKMS's signing key", self._remove_keys)
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
        return not had_keys and self._root.exists(_KEYS[0])

    def _remove_keys(self) -> None:
        for path in _KEYS:
            self._root.remove_file(path)

    def _roll_back(self, failure: HostError | OSError) -> HostError:
        """Undo what was done, and return the failure with what became of the host."""
        problems = self._undo.unwind()
        if problems:
            problems += self._keep_old()
        error = (
            failure
            if isinstance(failure, HostError)
            else HostError(
                "file",
                "Installing %s %s failed." % (self._tree.name, self._plan.version),
                evidence=[str(failure)],
                remedy="Make the filesystem that holds the path usable, then run again.",
            )
        )
        outcome = "NOT everything could be put back" if problems else "the host is as it was"
        error.message = "%s; %s." % (error.message.rstrip("."), outcome)
        error.evidence += problems
        return error

    def _keep_old(self) -> list[str]:
        """Save the copies of what was replaced from being dropped with the stage; say where they are."""
        old = STAGE + "/old"
        if self._root.exists(old) and not self._root.exists(KEPT):  # an earlier one is what worked last
            try:
                os.rename(self._real(old), self._real(KEPT))
            except OSError as exc:
                return ["NOT kept: the copies in %s: %s" % (old, exc)]
        return ["%s: copies of what was replaced, until a run succeeds" % KEPT] * self._root.exists(KEPT)

    def drop_stage(self) -> None:
        """Remove what was built aside."""
        drop_half_done(self._root, self._tree)

    def _drop(self, kernel: str) -> None:
        """Take the module's files out of a kernel, keeping what it takes to bring them back."""
        kept = {path: self._root.read_bytes(path) or b"" for path in self._tree.installed_files(kernel)}
        self._undo.push("the module of kernel " + kernel, lambda: self._put_back(kernel, kept))
        drop_installed(self._root, self._runner, self._tree, [kernel])

    def _put_back(self, kernel: str, kept: dict[str, bytes]) -> None:
        for path, content in kept.items():
            self._root.write_file(path, content)
        done = self._runner.run("depmod", kernel) if kept else None
        if done is not None and done.rc != 0 and self._tree.is_indexed(kernel) is False:
            raise _left("depmod %s: rc %d: %s" % (kernel, done.rc, done.stderr.strip()))

    def _depmod(self, kernel: str) -> None:
        done = self._runner.run("depmod", kernel)
        if done.rc != 0:
            raise HostError(
                "install_failed",
                "Indexing the modules of kernel %s failed." % kernel,
                evidence=["depmod %s: rc %d" % (kernel, done.rc), *checks.cause(done.stdout + "\n" + done.stderr)],
                remedy="Mend the cause above, then run again.",
            )

    def _real(self, path: str) -> str:
        return self._root.path(path)

    def _verify_source(self, source: Source) -> None:
        found = digest(source)
        conf = read_conf(source, self._tree.source_dir(self._plan.version))
        if found != self._plan.digest or conf != (self._tree.name, self._plan.version):
            raise HostError(
                "archive",
                "The source that arrived is not the one that was declared.",
                evidence=[
                    "digest %s, declared %s" % (found, self._plan.digest),
                    "%s %s, declared %s %s" % (conf.name, conf.version, self._tree.name, self._plan.version),
                ],
                remedy="Run again; if it stays so, give name and version as dkms.conf in the source has them.",
            )

    # --- aside ---

    def _build(self, source: Source) -> None:
        plan = self._plan
        shutil.rmtree(self._real(STAGE), ignore_errors=True)
        if not plan.build:
            return
        self._write_source(STAGE + "/source/%s-%s" % (self._tree.name, plan.version), source)
        os.makedirs(self._real(STAGE + "/tree"))
        trees = ("--dkmstree", STAGE + "/tree", "--sourcetree", STAGE + "/source")
        self._dkms("add", *trees)
        for kernel in plan.build:
            done = self._runner.run("dkms", "build", *trees, *self._module(), "-k", kernel)
            said = done.stdout + "\n" + done.stderr
            if done.rc == _EXCLUDED or (done.rc == _EXCLUDED_BEFORE and "BUILD_EXCLUSIVE" in said):
                self.skipped[kernel] = self._refused_kernel(kernel, said)
            elif done.rc != 0:
                error = self._build_error(kernel, done.rc, said)
                if self._is_needed(kernel):
                    raise error
                # The host works with the kernel that it runs; that the other one would leave it without is reported.
                self.failed[kernel] = error.evidence
            elif self._signing.enforced:
                self._require_signature(kernel, said)

    def _is_needed(self, kernel: str) -> bool:
        return self._plan.explicit or kernel == _kernels.running(self._root)

    def _require_signature(self, kernel: str, said: str) -> None:
        """DKMS goes on without a signature if anything is in its way."""
        for path in self._staged(kernel):
            if signing.is_signed(self._root.read_bytes(path) or b"", path) is False:
                reasons = [line for line in said.splitlines() if re.search(r"sign|certificate|key", line, re.I)]
                raise HostError(
                    "not_signed",
                    "This kernel loads signed modules only, and DKMS did not sign the one for %s." % kernel,
                    evidence=[*self._signing.enforced_by, *(reasons or ["%s: no signature" % os.path.basename(path)])],
                    remedy="See that DKMS finds sign-file (Debian: the package linux-kbuild of this kernel) and its key"
                    " (/etc/dkms/framework.conf), then run again.",
                )

    def _staged(self, kernel: str) -> list[str]:
        """The module files that were built aside for a kernel."""
        base = "%s/tree/%s/%s/%s" % (STAGE, self._tree.name, self._plan.version, kernel)
        return [
            "%s/%s/module/%s" % (base, arch, one)
            for arch in self._root.listdir(base)
            for one in self._root.listdir(base, arch, "module")
            if ".ko" in one
        ]

    def _refused_kernel(self, kernel: str, said: str) -> str:
        reason = "dkms.conf excludes it: " + (" ".join(said.split()) or "no reason given")
        if self._is_needed(kernel):
            raise HostError(
                "kernel_excluded",
                "The source is not for the kernel %s." % kernel,
                evidence=[reason],
                remedy="Boot a kernel that the module supports (BUILD_EXCLUSIVE_* in its dkms.conf says which).",
            )
        return reason

    def _build_error(self, kernel: str, rc: int, said: str) -> HostError:
        logs = [
            os.path.join(where, "make.log")
            for where, _dirs, names in os.walk(self._real(STAGE + "/tree"))
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
            "Building %s %s for kernel %s failed." % (self._tree.name, self._plan.version, kernel),
            evidence=["dkms build: rc %d" % rc, *checks.cause(_shorten_paths(log or said))],
            remedy="Mend the cause above, then run again.",
        )

    # --- in place ---

    def _swap(self, source: Source) -> None:
        """Put what was built into the DKMS tree, and take out what it replaces."""
        plan, tree = self._plan, self._tree
        gone = [*plan.others, plan.version] if plan.fresh else plan.others
        for version in gone:
            if version in tree.versions() or version in tree.source_versions():
                self._set_aside(version)
        if plan.fresh:
            target = tree.source_dir(plan.version)
            self._undo.push("the new source", lambda: self._remove_tree(target))
            # In two steps, so that a killed run leaves no half source under the right name.
            self._write_source(target + HALF, source)
            shutil.rmtree(self._real(target), ignore_errors=True)
            os.rename(self._real(target + HALF), self._real(target))
        built = "%s/tree/%s/%s" % (STAGE, tree.name, plan.version)
        if not plan.build:
            return
        home = "%s/%s" % (tree.directory, plan.version)
        os.makedirs(self._real(home), exist_ok=True)
        if plan.fresh:
            self._undo.push("the new version", lambda: self._forget(plan.version))
            self._root.write_link(home + "/source", tree.source_dir(plan.version))
        for kernel in self._root.listdir(built):
            if kernel not in plan.build or not self._root.exists(built, kernel):
                continue
            if not plan.fresh:
                self._undo.push(
                    "the module of kernel " + kernel, lambda kernel=kernel: self._forget_kernel(plan.version, kernel)
                )
                shutil.rmtree(self._real("%s/%s" % (home, kernel)), ignore_errors=True)
            os.rename(self._real("%s/%s" % (built, kernel)), self._real("%s/%s" % (home, kernel)))

    def _set_aside(self, version: str) -> None:
        """Remove a version, keeping what it takes to bring it back."""
        tree = self._tree
        kernels = [one for one in tree.kernels(version) if tree.state(version, one) == INSTALLED]
        moves = [
            ("%s/%s" % (tree.directory, version), "%s/old/tree/%s" % (STAGE, version)),
            (tree.source_dir(version), "%s/old/source/%s" % (STAGE, version)),
        ]
        for here, there in moves:
            if self._root.exists(here):
                shutil.copytree(self._real(here), self._real(there), symlinks=True)
        self._undo.push("version %s in DKMS" % version, lambda: self._bring_back(version, moves, kernels))
        remove_version(self._root, self._runner, tree, version)

    def _bring_back(self, version: str, moves: list[tuple[str, str]], kernels: list[str]) -> None:
        for here, there in moves:
            if self._root.exists(there):
                shutil.rmtree(self._real(here), ignore_errors=True)
                shutil.copytree(self._real(there), self._real(here), symlinks=True)
        for kernel in kernels:
            done = self._runner.run("dkms", "install", "-m", self._tree.name, "-v", version, "-k", kernel)
            if self._tree.state(version, kernel) != INSTALLED:
                raise _left("dkms install for kernel %s: rc %d: %s" % (kernel, done.rc, done.stderr.strip()))

    def _forget(self, version: str) -> None:
        remove_version(self._root, self._runner, self._tree, version)
        if version in self._tree.versions():
            raise _left("%s/%s is still there" % (self._tree.directory, version))

    def _forget_kernel(self, version: str, kernel: str) -> None:
        done = self._runner.run("dkms", "remove", "-m", self._tree.name, "-v", version, "-k", kernel)
        if self._root.exists(self._tree.directory, version, kernel):
            raise _left("dkms remove for kernel %s: rc %d: %s" % (kernel, done.rc, done.stderr.strip()))

    def _remove_tree(self, path: str) -> None:
        if self._root.exists(path):
            shutil.rmtree(self._real(path))

    def _install(self, kernel: str) -> None:
        plan = self._plan
        done = self._runner.run("dkms", "install", "--force", *self._module(), "-k", kernel)
        if self._tree.is_indexed(kernel) is False:
            self._depmod(kernel)
        written = [*self._tree.built(plan.version, kernel).values(), *self._tree.installed_files(kernel), *_KEYS]
        for path in filter(self._root.exists, written):
            self._root.sync(path)
        state = self._tree.state(plan.version, kernel)
        if done.rc != 0 or state != INSTALLED:
            raise HostError(
                "install_failed",
                "Installing %s %s for kernel %s failed." % (self._tree.name, plan.version, kernel),
                evidence=["dkms install: rc %d" % done.rc, *checks.cause(done.stdout + "\n" + done.stderr)],
                remedy="Mend the cause above, then run again.",
            )

    def _write_source(self, directory: str, source: Source) -> None:
        shutil.rmtree(self._real(directory), ignore_errors=True)
        for path, content in source.items():
            self._root.write_file("%s/%s" % (directory, path), content)

    def _module(self) -> tuple[str, ...]:
        return ("-m", self._tree.name, "-v", self._plan.version)

    def _dkms(self, action: str, *options: str) -> None:
        done = self._runner.run("dkms", action, *options, *self._module())
        if done.rc != 0:
            raise HostError(
                "dkms",
                "dkms %s failed." % action,
                evidence=["rc %d" % done.rc, *checks.cause(done.stdout + "\n" + done.stderr)],
                remedy="Mend the cause above, then run again.",
            )


def _left(evidence: str) -> HostError:
    """What an undo raises that has not undone its step."""
    return HostError("undo", evidence)


def _shorten_paths(log: str) -> str:
    """Drop the staging directories, which are gone when somebody reads this."""
    return re.sub(re.escape(STAGE) + r"/tree/\S*?/build/", "", log)


def remove_version(root: Root, runner: Runner, tree: Tree, version: str) -> list[str]:
    """Remove a version from DKMS, from the kernels and from /usr/src, also where DKMS finds it broken.

    Whoever wants it gone looks whether it is: return why the source may still be there.
    """
    home = "%s/%s" % (tree.directory, version)
    kernels = tree.kernels(version)
    if root.exists(home):
        runner.run("dkms", "remove", "-m", tree.name, "-v", version, "--all")
    if root.exists(home):
        shutil.rmtree(root.path(home), ignore_errors=True)
        for entry in root.listdir(tree.directory):
            if entry.startswith("kernel-") and not os.path.exists(root.path(tree.directory, entry)):
                root.remove_file("%s/%s" % (tree.directory, entry))
        drop_installed(root, runner, tree, kernels)
    problems = _remove_source(root, tree.source_dir(version))
    root.remove_empty_dir(tree.directory)
    return problems


def _remove_source(root: Root, path: str) -> list[str]:
    """Remove a source, by no moment at which half of one has the right name; return why it could not be."""
    half, problems = root.path(path + HALF), []
    shutil.rmtree(half, ignore_errors=True)
    try:
        os.rename(root.path(path), half)
    except FileNotFoundError:
        pass
    except OSError as exc:  # read-only, or so full that there is no room for a name
        problems.append("renaming %s: %s" % (path, exc.strerror))
    shutil.rmtree(half, ignore_errors=True)
    return problems


def _key_is_needed(root: Root) -> bool:
    """Whether other modules are signed with DKMS's key, or the firmware has it enrolled or about to be."""
    others = [one for one in root.listdir(TREE) if not one.startswith((".", "mok."))]
    certificate = root.read_bytes(_KEYS[1])
    if others or certificate is None:
        return True
    return signing.trust(root, certificate) != signing.NOT_ENROLLED or signing.in_firmware(root, certificate)


def drop_installed(root: Root, runner: Runner, tree: Tree, kernels: list[str]) -> None:
    """Remove module files that DKMS does not know of from kernels."""
    for kernel in kernels:
        files = tree.installed_files(kernel)
        for path in files:
            root.remove_file(path)
            where = os.path.dirname(path)
            while where != "%s/%s" % (_kernels.MODULES, kernel) and root.remove_empty_dir(where):
                where = os.path.dirname(where)
        if files:
            runner.run("depmod", kernel)


def drop_half_done(root: Root, tree: Tree) -> None:
    """Remove what this run built aside, or one that was killed."""
    for path in tree.half_done():
        shutil.rmtree(root.path(path), ignore_errors=True)


def drop_kept(root: Root) -> None:
    """Remove what a run kept that could not put everything back."""
    shutil.rmtree(root.path(KEPT), ignore_errors=True)


def remove_all(root: Root, runner: Runner, plan: AbsentPlan) -> None:
    """Bring an absent plan about."""
    plan.refuse_if_used()
    if plan.loaded is not None:
        done = runner.run("modprobe", "--remove", plan.tree.name)
        if done.rc != 0:
            raise HostError(
                "module_in_use",
                "The module %s could not be unloaded; nothing was removed." % plan.tree.name,
                evidence=["modprobe --remove: rc %d: %s" % (done.rc, done.stderr.strip())],
                remedy="See what uses it (lsmod), stop that, then run again.",
            )
    drop_half_done(root, plan.tree)
    drop_kept(root)
    problems = [line for version in plan.versions for line in remove_version(root, runner, plan.tree, version)]
    drop_installed(root, runner, plan.tree, root.listdir(_kernels.MODULES))
    for entry in root.listdir(plan.tree.directory):
        root.remove_file("%s/%s" % (plan.tree.directory, entry))
    root.remove_empty_dir(plan.tree.directory)
    for kernel in AbsentPlan(root, plan.tree.name).misled:
        runner.run("depmod", kernel)
    if Record.load(root, plan.tree.name).made_keys and not _key_is_needed(root):
        for path in _KEYS:
            root.remove_file(path)
    root.remove_file(record_path(plan.tree.name))
    root.remove_empty_dir(os.path.dirname(record_path(plan.tree.name)))
    left = AbsentPlan(root, plan.tree.name)
    if left.changed:
        raise HostError(
            "remove_failed",
            "%s could not be removed completely." % plan.tree.name,
            evidence=[
                "versions: %s" % ", ".join(left.versions),
                "kernels: %s" % left.before,
                "modules.dep names it for: %s" % ", ".join(left.misled),
                *problems,
            ],
            remedy="Look whether the filesystems of /usr/src, %s and %s are writable and have space left."
            % (TREE, _kernels.MODULES),
        )
