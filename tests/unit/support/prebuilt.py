# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of a built module, and runs that install them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.archive import Archive
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import Source, digest, pack
from ansible_collections.baremetal.noiommu.plugins.modules import dkms_module
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule

ARCH = os.uname().machine
SOURCE: Source = {
    "dkms.conf": b'PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="1.0.0"\n',
    "noiommu.c": b"int a;",
    "Makefile": b"all:\n",
}
DIGEST = digest(SOURCE)
ZSTD = (".zst", lambda plain: b"\x28\xb5\x2f\xfd" + plain[::-1])  # as unreadable here as the real thing


def made_for(kernel: str, **changes: Any) -> bytes:
    code = b"\x7fELF vermagic=%s SMP" % kernel.encode()
    archive = Archive("noiommu", "1.0.0", DIGEST, kernel, ARCH, {"noiommu.ko": code}, SOURCE["dkms.conf"], None)
    return archives.pack(archive._replace(**changes))


def params(**given: Any) -> dict[str, Any]:
    return {
        "name": "noiommu",
        "version": "1.0.0",
        "digest": DIGEST,
        "kernels": [],
        "archive": None,
        "announced": True,
        "build": "prebuilt",
        "available": {},
        "unbuilt": {},
        "archive_files": {},
        **given,
    }


class Run:
    """One execution as the action plugin does it: the archives are sent only if they are asked for."""

    def __init__(self, dkms: FakeDkms, tmp: Path, packed: dict[str, bytes], check: bool = False, **given: Any) -> None:
        sums = {kernel: archives.sha256(archive) for kernel, archive in packed.items()}
        self.module = FakeModule(params(available=sums, **given), check)
        self.result = dkms_module.present(self.module, dkms.tree.root, dkms)
        self.sent = [] if check else self.result["archives_needed"]
        if self.sent:
            for kernel in self.sent:
                (tmp / kernel).write_bytes(packed[kernel])
                self.module.params["archive_files"][kernel] = str(tmp / kernel)
            self.module.warnings.clear()
            self.result = dkms_module.present(self.module, dkms.tree.root, dkms)


def refused(dkms: FakeDkms, tmp: Path, packed: dict[str, bytes], **given: Any) -> HostError:
    before = dkms.tree.content()
    with pytest.raises(HostError) as caught:
        Run(dkms, tmp, packed, **given)
    assert dkms.tree.content() == before
    assert caught.value.evidence and caught.value.remedy
    return caught.value


def build(dkms: FakeDkms, tmp: Path, kernels: list[str], check: bool = False) -> dict[str, Any]:
    (tmp / "source").write_bytes(pack(SOURCE))
    given = params(kernels=kernels, archive=None if check else str(tmp / "source"), destination="/tmp")
    return dkms_module.archived(FakeModule(given, check), dkms.tree.root, dkms)
