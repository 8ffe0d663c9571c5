# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The build host's part: a module built once for each kernel release, and nothing installed."""

from __future__ import annotations

import os

from .._base.command import Runner
from .._base.fs import Root
from .._host import kernels as _kernels
from . import archive as archives
from . import checks, signing
from .archive import Archive
from .build import StagedBuild
from .install import require_source
from .source import Source
from .transaction import DkmsTransaction
from .tree import Tree


class ArchiveBuilder:
    """Builds for kernels that this host need not run."""

    def __init__(self, root: Root, runner: Runner, name: str, version: str, digest: str, kernels: list[str]) -> None:
        self._root, self._runner = root, runner
        self._name, self._version, self._digest = name, version, digest
        self._lacking = checks.lacking(root, kernels)
        self.headless = {
            kernel: ["%s is not installed on the build host" % _kernels.headers_package(root, kernel)]
            for kernel in kernels
            if _kernels.headers(root, kernel) is None
        }
        self._kernels = [kernel for kernel in kernels if kernel not in self.headless]
        self.failed = dict(self.headless)  # kernels without an archive, with the cause

    def packages_missing(self) -> list[str]:
        """Return what has to be installed to build for every kernel."""
        if self._lacking is None:
            return []
        return sorted(line.partition(": ")[0] for line in self._lacking.evidence)

    def check(self) -> None:
        """Refuse what cannot work, before anything is built. Missing headers concern their kernel alone."""
        problem = checks.lacking(self._root, self._kernels)
        if problem is not None:
            raise problem
        checks.require_space(self._root, [])
        if self._kernels:
            checks.require_compiler(self._root, self._runner, self._kernels)

    def archive(self, source: Source) -> dict[str, bytes]:
        """Build; return each kernel's archive."""
        require_source(source, "the source", (self._name, self._version, self._digest))
        if not self._kernels:
            return {}
        transaction = DkmsTransaction(self._root, self._runner, Tree(self._root, self._name), self._version)
        # No failure is an error here: it is reported to the hosts that want the module.
        build = StagedBuild(
            self._root, self._runner, self._name, self._version, transaction.stage, is_needed=lambda kernel: False
        )
        transaction.run(lambda: build.build(source, self._kernels), keep_stage=True)
        try:
            self.failed.update(build.failed)
            self.failed.update({kernel: [why] for kernel, why in build.skipped.items()})
            built = [kernel for kernel in self._kernels if build.module_files(kernel)]
            return {kernel: self._collect(kernel, build.module_files(kernel), source) for kernel in built}
        finally:
            transaction.drop_stage()

    def _collect(self, kernel: str, paths: list[str], source: Source) -> bytes:
        arch = paths[0].split("/")[-3]
        certificate = signing.certificate_at(self._root, signing.pair(self._root)[1])
        modules = {os.path.basename(path): self._root.read_bytes(path) or b"" for path in paths}
        # Where that cannot be seen, assume that it was signed with the build host's key.
        if any(signing.is_signed(content, name) is False for name, content in modules.items()):
            certificate = None
        archive = Archive(
            self._name, self._version, self._digest, kernel, arch, modules, source["dkms.conf"], certificate
        )
        return archives.pack(archive)
