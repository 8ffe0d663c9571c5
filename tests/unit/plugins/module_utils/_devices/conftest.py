# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts with a card that can have virtual functions."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import vf_control
from ansible_collections.baremetal.noiommu.tests.unit.support import fake_rtnetlink
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_rtnetlink import Driver
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import (
    MAC,
    PF,
)


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host with such a card."""
    machine.tree.pci(PF, "8086:10c9", driver="igb")
    machine.tree.net("pf0", PF, MAC, up=True)
    machine.tree.sriov(PF)
    machine.tree.driver("igbvf")
    return machine


@pytest.fixture
def driver(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    monkeypatch.setattr(vf_control, "_LINK_WAIT", 0.0)
    return fake_rtnetlink.install(host, monkeypatch)
