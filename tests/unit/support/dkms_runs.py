# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of the module that installs by DKMS."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import Source, digest, pack
from ansible_collections.baremetal.noiommu.plugins.modules import dkms_module
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule

RECORD = "/var/lib/noiommu/dkms-noiommu.json"
BOTH = {KERNEL: "installed", OTHER: "installed"}


def source(version: str = "1.0.0", code: str = "int a;") -> Source:
    conf = 'PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="%s"\n' % version
    return {"dkms.conf": conf.encode(), "noiommu.c": code.encode(), "Makefile": b"all:\n"}


class Run:
    """One execution of the module, as the action plugin does it: with the source only if it is asked for."""

    def __init__(self, dkms: FakeDkms, wanted: Source | None = None, check: bool = False, **params: Any) -> None:
        self.dkms = dkms
        wanted = wanted or source()
        version = wanted["dkms.conf"].decode().split('"')[3]
        given = {
            "name": "noiommu",
            "version": version,
            "digest": digest(wanted),
            "kernels": [],
            "archive": None,
            "build": "on_host",
            "announced": False,
        }
        self.module = FakeModule({**given, **params}, check)
        self.result = self._call()
        self.sent = self.result["source_needed"] and not check
        if "to_build" in self.result:
            self.module.params["announced"] = True
            with tempfile.NamedTemporaryFile() as archive:
                archive.write(pack(wanted))
                archive.flush()
                self.module.params["archive"] = archive.name if self.sent else None
                self.module.warnings.clear()
                self.result = self._call()

    def _call(self) -> dict[str, Any]:
        return dkms_module.present(self.module, self.dkms.tree.root, self.dkms)


def remove(dkms: FakeDkms, check: bool = False) -> tuple[dict[str, Any], list[str]]:
    module = FakeModule({"name": "noiommu"}, check)
    return dkms_module.absent(module, dkms.tree.root, dkms), module.warnings


def refused(dkms: FakeDkms, wanted: Source | None = None, **params: Any) -> HostError:
    """Return the error, after seeing that the host is as it was."""
    before = dkms.tree.content()
    with pytest.raises(HostError) as caught:
        Run(dkms, wanted, **params)
    assert dkms.tree.content() == before
    assert caught.value.evidence and caught.value.remedy
    return caught.value
