# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guards say of a device in a tree."""

from __future__ import annotations

from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import Guard, GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guards import check
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:00:04.0"


def guards(tree: Tree, address: str, net: NetState | None = None, ssh: str | None = None) -> list[Guard]:
    bus = PciBus(tree.root)
    return check(GuardContext(tree.root, net, ssh), bus, bus.get(address))


def kinds(found: list[Guard]) -> list[str]:
    return [guard.kind for guard in found]
