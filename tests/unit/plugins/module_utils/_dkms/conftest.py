# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts with and without DKMS, and archives."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, FakeDkms, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.prebuilt import (
    made_for,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.fixture
def dkms(tree: Tree) -> FakeDkms:
    build_host(tree)
    return FakeDkms(tree)


@pytest.fixture
def bare(tree: Tree) -> FakeDkms:
    """A host with two kernels and nothing to build with."""
    build_host(tree)
    tree.remove("/usr")
    tree.remove("/var/lib/dkms")
    for kernel in (KERNEL, OTHER):
        tree.remove("/lib/modules/%s/build" % kernel)
    return FakeDkms(tree)


@pytest.fixture
def tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sent")


@pytest.fixture
def packed() -> dict[str, bytes]:
    return {kernel: made_for(kernel) for kernel in (KERNEL, OTHER)}


# --- the build host ---


@pytest.fixture
def builder(tree: Tree) -> FakeDkms:
    build_host(tree)
    return FakeDkms(tree)
