# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing a version of the module, and everything of it."""

from __future__ import annotations

import os
import shutil

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._host import kernels as _kernels
from . import signing
from .plan import difference, show_states
from .record import DkmsRecord, record_path
from .tree import ABSENT, ADDED, BUILT, DIFFERS, HALF, INSTALLED, KEPT, TREE, Tree, loaded


class AbsentPlan:
    """What one run does to remove the module entirely."""

    def __init__(self, root: Root, runner: Runner, name: str) -> None:
        self.root, self._runner = root, runner
        self.tree = Tree(root, name)
        self.versions = sorted({*self.tree.versions(), *self.tree.source_versions()})
        self.loaded = loaded(root, name)
        self.warnings: list[str] = []
        kernels = {kernel for version in self.versions for kernel in self.tree.kernels(version)}
        self.leftovers = {kernel: self.tree.installed_files(kernel) for kernel in root.listdir(_kernels.MODULES)}
        kernels |= {kernel for kernel, files in self.leftovers.items() if files}
        # After a power cut, an index may name a module that is not there.
        self.misled = [name for name, files in self.leftovers.items() if not files and self.tree.is_indexed(name)]
        prebuilt = DkmsRecord.load(root, name).prebuilt
        self.states_before = {
            kernel: max(
                (self.tree.state(version, kernel) for version in self.versions),
                key=(ABSENT, ADDED, BUILT, DIFFERS, INSTALLED).index,
                default=INSTALLED if kernel in prebuilt else DIFFERS,
            )
            for kernel in sorted(kernels, key=_kernels.version_key)
        }
        self.states_after = dict.fromkeys(self.states_before, ABSENT)

    @property
    def changed(self) -> bool:
        """Whether anything is there."""
        noted = self.root.exists(record_path(self.tree.name)) or self.root.exists(KEPT)
        return bool(self.versions or self.states_before or self.loaded or self.misled or noted or self.tree.half_done())

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
            remedy="Release its devices first (baremetal.noiommu.vfio_binding with state: absent), after stopping the"
            " applications that have them open.",
        )

    def before(self) -> dict[str, str]:
        """Return the module's state for each kernel before the run."""
        return self.states_before

    def after(self) -> dict[str, str]:
        """Return the same after the run."""
        return self.states_after

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        name = self.tree.name
        before = ["loaded"] if self.loaded else []
        before += [
            "source %s-%s %s" % (name, version, self.tree.source_digest(version) or "missing")
            for version in self.versions
        ]
        before += ["kernel %s: modules.dep names it" % kernel for kernel in self.misled]
        return difference(name, [*before, *show_states(self.states_before)], show_states(self.states_after))

    def apply(self) -> None:
        """Unload and remove everything, or raise."""
        root, tree = self.root, self.tree
        self.refuse_if_used()
        if self.loaded is not None:
            self._unload()
        drop_half_done(root, tree)
        drop_kept(root)
        problems = [line for version in self.versions for line in remove_version(root, self._runner, tree, version)]
        drop_installed(root, self._runner, tree, root.listdir(_kernels.MODULES))
        for entry in root.listdir(tree.directory):
            root.remove_file("%s/%s" % (tree.directory, entry))
        root.remove_empty_dir(tree.directory)
        for kernel in AbsentPlan(root, self._runner, tree.name).misled:
            self._runner.run("depmod", kernel)
        if DkmsRecord.load(root, tree.name).made_keys and not _is_key_needed(root):
            for path in signing.DKMS_PAIR:
                root.remove_file(path)
        root.remove_file(record_path(tree.name))
        root.remove_empty_dir(os.path.dirname(record_path(tree.name)))
        self._verify(problems)

    def _unload(self) -> None:
        done = self._runner.run("modprobe", "--remove", self.tree.name)
        if done.rc != 0:
            raise HostError(
                "module_in_use",
                "The module %s could not be unloaded; nothing was removed." % self.tree.name,
                evidence=["modprobe --remove: rc %d: %s" % (done.rc, done.stderr.strip())],
                remedy="Find out what uses it (lsmod), stop that, then run again.",
            )

    def _verify(self, problems: list[str]) -> None:
        left = AbsentPlan(self.root, self._runner, self.tree.name)
        if left.changed:
            raise HostError(
                "remove_failed",
                "%s could not be removed completely." % self.tree.name,
                evidence=[
                    "versions: %s" % ", ".join(left.versions),
                    "kernels: %s" % left.states_before,
                    "modules.dep names it for: %s" % ", ".join(left.misled),
                    *problems,
                ],
                remedy="Check that the filesystems of /usr/src, %s and %s are writable and have space left."
                % (TREE, _kernels.MODULES),
            )


def remove_version(root: Root, runner: Runner, tree: Tree, version: str) -> list[str]:
    """Remove a version from DKMS, from the kernels and from /usr/src, also where DKMS finds it broken.

    The caller checks whether it is gone: return why the source may still be there.
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
    """Remove a source, at no moment leaving half of it under its name; return why it could not be removed."""
    half: str = root.path(path + HALF)
    problems: list[str] = []
    shutil.rmtree(half, ignore_errors=True)
    try:
        root.rename(path, path + HALF)
    except FileNotFoundError:
        pass
    except OSError as exc:  # read-only, or so full that there is no room for a name
        problems.append("renaming %s: %s" % (path, exc.strerror))
    shutil.rmtree(half, ignore_errors=True)
    return problems


def _is_key_needed(root: Root) -> bool:
    """Whether other modules are signed with DKMS's key, or the firmware has it enrolled or about to be."""
    others = [entry for entry in root.listdir(TREE) if not entry.startswith((".", "mok."))]
    certificate = root.read_bytes(signing.DKMS_PAIR[1])
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
    """Remove what a run kept that could not restore everything."""
    shutil.rmtree(root.path(KEPT), ignore_errors=True)
