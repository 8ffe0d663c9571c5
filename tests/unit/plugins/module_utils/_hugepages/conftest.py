# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with hugetlb pools, mounts and a boot loader."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import FakeGrub
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb import (
    HugetlbRoot,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb_mounts import (
    Mounts,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.fixture
def root(tree: Tree) -> HugetlbRoot:
    return HugetlbRoot(tree)


@pytest.fixture
def grub(root: HugetlbRoot, tree: Tree) -> FakeGrub:
    """A host that GRUB boots, whose node 1 has 1500 MiB free."""
    tree.file("/proc/sys/kernel/osrelease", "6.1.0-56-amd64")
    root.free_mib[1] = 1500
    root.show()
    return FakeGrub(tree)


@pytest.fixture
def mounts(tree: Tree) -> Mounts:
    return Mounts(tree)
