# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The read-only module around the group report."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.modules import iommu_group_info
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

A, B = "0000:00:04.0", "0000:00:05.0"


@pytest.fixture
def host(tree: Tree) -> Tree:
    tree.pci(A)
    tree.pci(B)
    tree.group(0, A)
    tree.group(1, B)
    return tree


def test_everything_by_default_and_as_documented(host: Tree) -> None:
    result = iommu_group_info.report(host.root, None)
    documented = yaml.safe_load(iommu_group_info.RETURN)
    assert [device["address"] for device in result["devices"]] == [A, B]
    assert set(result["groups"][0]) == set(documented["groups"]["contains"])
    assert set(result["devices"][0]) == set(documented["devices"]["contains"])


def test_only_the_given_ones(host: Tree) -> None:
    result = iommu_group_info.report(host.root, ["00:05.0"])
    assert [device["address"] for device in result["devices"]] == [B]
    assert [group["group"] for group in result["groups"]] == [1]


@pytest.mark.parametrize("address", ["nonsense", "0000:99:00.0"])
def test_unknown_addresses_are_an_error(host: Tree, address: str) -> None:
    with pytest.raises(HostError):
        iommu_group_info.report(host.root, [address])


def test_a_physical_function_with_virtual_ones_is_reported(host: Tree) -> None:
    """Nothing is done to it: only whoever binds it would destroy its virtual functions."""
    host.vf(A, 0)
    assert [device["address"] for device in iommu_group_info.report(host.root, [A])["devices"]] == [A]
