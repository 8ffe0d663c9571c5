# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules that were built elsewhere, for hosts that have no compiler.

They are installed without DKMS, whose package depends on a compiler; the files go where DKMS would put them.
"""

from __future__ import annotations

import os
import re
from functools import partial

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._host import kernels as _kernels
from . import archive as archives
from . import checks, signing
from .archive import Archive
from .plan import DkmsPlan, require_installed
from .record import DkmsRecord
from .remove import drop_installed
from .transaction import DkmsTransaction
from .tree import ABSENT, DIFFERS, INSTALLED

_INSTALL_DIR = {"debian": "updates/dkms", "redhat": "extra"}


class PrebuiltPlan(DkmsPlan):
    """What one run does to have a version installed from archives. Made from files alone."""

    def __init__(
        self,
        root: Root,
        name: str,
        version: str,
        wanted: str,
        asked: list[str],
        available: dict[str, str],
        unbuilt: dict[str, list[str]] | None = None,
    ) -> None:
        """``available`` has the checksum of each kernel's archive, ``unbuilt`` why others could not be made."""
        super().__init__(root, name, version, wanted)
        self.available = available
        self._unbuilt = unbuilt or {}
        running, every = _kernels.running(root), _kernels.installed(root)
        wanted_kernels = require_installed(root, asked) if asked else {running, *every}
        self.kernels = sorted(wanted_kernels, key=_kernels.version_key)
        self.states_before = {kernel: self._state(kernel) for kernel in self.kernels}
        lacking = [kernel for kernel in self.kernels if self.states_before[kernel] != INSTALLED]
        self.install = [kernel for kernel in lacking if kernel in available]
        self.missing = [kernel for kernel in lacking if kernel not in available]
        self.needed = [kernel for kernel in self.missing if asked or kernel == running]
        self.states_after = {
            kernel: self.states_before[kernel] if kernel in self.missing else INSTALLED for kernel in self.kernels
        }
        # Versions that DKMS has here would install themselves over it.
        self.others = sorted({*self.tree.versions(), *self.tree.source_versions()})
        self.gone = [kernel for kernel in self.record.prebuilt if kernel not in (*self.kernels, *every)]
        self.warn_loaded()

    def _state(self, kernel: str) -> str:
        entry = self.record.prebuilt.get(kernel)
        there = self.tree.installed_files(kernel)
        if entry is None:
            return DIFFERS if there else ABSENT
        as_noted = entry["files"] == {path: _sum(self.root, path) for path in there}
        same = self.record.digest == self.digest and entry["archive"] == self.available.get(kernel, entry["archive"])
        return INSTALLED if as_noted and same else DIFFERS if there else ABSENT

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.install or self.others or self.gone or self.half_done)

    def failures(self) -> dict[str, list[str]]:
        """The kernels that stay without the module."""
        return {kernel: ["no prebuilt archive for it", *self._unbuilt.get(kernel, [])] for kernel in self.missing}

    def lacking(self) -> HostError | None:
        """Return the error for a needed kernel without an archive."""
        if not self.needed:
            return None
        return HostError(
            "archive_missing",
            "There is no prebuilt module for the kernel %s." % ", ".join(self.needed),
            evidence=[
                "archives of %s %s, source %s: %s"
                % (self.tree.name, self.version, self.digest[:12], ", ".join(sorted(self.available)) or "none"),
                *(why for kernel in self.needed for why in self._unbuilt.get(kernel, [])),
            ],
            remedy="Name a build host (noiommu_kmod_build_host) that has or can install the headers of this kernel, or"
            " put an archive that was built elsewhere into the archive directory (noiommu_kmod_archives).",
        )

    def header(self) -> list[str]:
        """The lines of the diff above the kernels."""
        return ["archive for %s: %s" % (kernel, self.available[kernel]) for kernel in self.install]


class PrebuiltInstaller:
    """Installs from archives what a plan says."""

    def __init__(self, root: Root, runner: Runner, plan: PrebuiltPlan, packed: dict[str, bytes] | None = None) -> None:
        """``packed`` are the archives of the kernels that the plan wants to install for."""
        self._root, self._runner = root, runner
        self._plan, self._tree = plan, plan.tree
        self._packed = packed or {}
        self._signing = signing.read(root, prebuilt=True)
        self._transaction = DkmsTransaction(root, runner, plan.tree, plan.version)

    def check(self) -> None:
        """Refuse what cannot work, before anything changes and before the archives are sent."""
        problem = self._plan.lacking()
        if problem is not None:
            raise problem
        checks.require_space(self._root, self._plan.install)
        checks.require_writable(self._root, self._plan.install)

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return self._plan.changed

    @property
    def failures(self) -> dict[str, list[str]]:
        """Every kernel that is left without the module, with the cause."""
        return self._plan.failures()

    @property
    def warnings(self) -> list[str]:
        """What the operator must know although nothing failed."""
        return self._plan.warnings

    def before(self) -> dict[str, str]:
        """Return the module's state for each kernel before the run."""
        return self._plan.states_before

    def after(self) -> dict[str, str]:
        """Return the same after the run."""
        return self._plan.states_after

    def diff(self) -> list[dict[str, str]]:
        """Return what differs in the form that Ansible prints."""
        return self._plan.diff()

    def apply(self) -> None:
        """Install what the archives hold."""
        plan = self._plan
        opened = {kernel: self._open(kernel, self._packed[kernel]) for kernel in plan.install}
        recorded = plan.record.prebuilt
        kept = {kernel: entry for kernel, entry in recorded.items() if plan.states_before.get(kernel) == INSTALLED}
        self._transaction.run(lambda: self._place_all(opened))
        for kernel in plan.install:
            files = {path: _sum(self._root, path) for path in self._tree.installed_files(kernel)}
            kept[kernel] = {"archive": plan.available[kernel], "files": files}
        DkmsRecord(plan.digest, {}, plan.record.made_keys, {}, kept).save(self._root, self._tree.name)

    def _open(self, kernel: str, packed: bytes) -> Archive:
        """Return an archive's content after everything that can be known of it was checked."""
        plan = self._plan
        where = "archive for " + kernel
        archives.check_sum(packed, plan.available[kernel], where)
        archive = archives.unpack(packed, where)
        wanted = (self._tree.name, plan.version, plan.digest, kernel, os.uname().machine)
        if archive[:5] != wanted:
            raise HostError(
                "archive",
                "A prebuilt archive is not for this host.",
                evidence=["it is for: %s" % " ".join(archive[:5]), "wanted: %s" % " ".join(wanted)],
                remedy="Remove it where the controller keeps it, and run again: the build host then makes it anew.",
            )
        for name, content in archive.modules.items():
            self._fits(archive, name, content)
        return archive

    def _fits(self, archive: Archive, name: str, content: bytes) -> None:
        plain = signing.uncompressed(content, name)
        magic = re.search(rb"vermagic=(\S+)", plain or b"")
        if plain is not None and (magic is None or magic.group(1).decode() != archive.kernel):
            raise HostError(
                "archive",
                "A module in a prebuilt archive was built for another kernel than the archive's name says.",
                evidence=[
                    "%s: vermagic %s, wanted %s" % (name, magic.group(1).decode() if magic else "none", archive.kernel)
                ],
                remedy="Remove it where the controller keeps it, and run again: the build host then makes it anew.",
            )
        if not self._signing.enforced or archive.kernel != _kernels.running(self._root):
            return
        certificate = archive.certificate
        unsigned = signing.is_signed(content, name) is False
        if certificate is None or unsigned:
            raise HostError(
                "not_signed",
                "This kernel loads signed modules only, and the prebuilt one is not signed, or not known to be.",
                evidence=[
                    *self._signing.enforced_by,
                    "%s: %s" % (name, "no signature" if unsigned else "its archive has no certificate of a key"),
                ],
                remedy="See why DKMS does not sign on the build host (openssl and sign-file are needed), remove the"
                " archive where the controller keeps it, and run again.",
            )
        if signing.trust(self._root, certificate) != signing.ENROLLED:
            raise HostError(
                "key_not_enrolled",
                "This kernel loads signed modules only, and it does not trust the key that the build host signs with.",
                evidence=[
                    *signing.facts(self._root, self._signing),
                    "/proc/keys: no key " + signing.key_id(certificate),
                ],
                remedy="Copy the build host's certificate (%s there) to this host, then as root: mokutil --import FILE,"
                " reboot, and confirm in MokManager at the console; then run again." % signing.DKMS_PAIR[1],
            )

    def _place_all(self, opened: dict[str, Archive]) -> None:
        for version in self._plan.others:
            self._transaction.set_aside(version)
        for kernel in self._plan.gone:
            self._transaction.remove_installed(kernel)
        for kernel, archive in opened.items():
            self._transaction.remove_installed(kernel)
            self._place(kernel, archive)

    def _place(self, kernel: str, archive: Archive) -> None:
        family = _kernels.read_os(self._root).family
        directory = "%s/%s/%s" % (_kernels.MODULES, kernel, _INSTALL_DIR.get(family, "updates"))
        self._transaction.undo.push(
            "the new module of kernel " + kernel,
            partial(drop_installed, self._root, self._runner, self._tree, [kernel]),
        )
        for name, content in archive.modules.items():
            self._root.write_file("%s/%s" % (directory, name), content)
        self._transaction.index(kernel)


def _sum(root: Root, path: str) -> str:
    return archives.sha256(root.read_bytes(path) or b"")
