# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import times
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import control, transaction
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty host."""
    return Tree(tmp_path / "host")


@pytest.fixture
def nic(tree: Tree) -> Tree:
    """A host with one network card and its interface."""
    tree.pci(NIC, driver="e1000e")
    tree.net("eth1", NIC, up=True)
    return tree


NOW = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.timezone.utc)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> datetime.datetime:
    """A clock that stands still."""
    monkeypatch.setattr(times, "utc_now", lambda: NOW)
    return NOW


@pytest.fixture
def machine(tree: Tree, now: datetime.datetime, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host whose kernel reacts; nothing on it needs waiting for."""
    for name in ("_VFIO_NODE_WAIT", "_INTERFACE_WAIT", "_RENAME_WAIT"):
        monkeypatch.setattr(control, name, 0.0)
    monkeypatch.setattr(transaction, "_AT_ONCE", 1)  # it counts its requests, one after the other
    return Machine(tree)
