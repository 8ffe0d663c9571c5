# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A DKMS source and archives on the controller."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import archive as archives
from ansible_collections.baremetal.noiommu.tests.unit.support.dkms_action import K1, name_of


@pytest.fixture
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base class wants a whole running Ansible."""
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda self, tmp, task_vars: {})


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "dkms.conf").write_text('PACKAGE_NAME="noiommu"\nPACKAGE_VERSION="1.0.0"\n')
    (tmp_path / "a.c").write_text("int a;")
    return str(tmp_path)


@pytest.fixture
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote")


@pytest.fixture
def kept(tmp_path_factory: pytest.TempPathFactory, source: str) -> str:
    """A directory with an archive for the first kernel."""
    directory = str(tmp_path_factory.mktemp("kept"))
    archives.store(directory, name_of(source, K1), b"content")
    return directory
