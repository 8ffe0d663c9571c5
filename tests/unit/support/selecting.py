# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Selects devices of a tree."""

from __future__ import annotations

from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.selectors import resolve
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus

from .tree import Tree


def select(tree: Tree, *selectors: dict, recorded: tuple = ()) -> list[str]:
    """Return the addresses that selectors mean, or raise the first error."""
    devices, errors = resolve(list(selectors), PciBus(tree.root), list(recorded))
    if errors:
        raise errors[0]
    return [device.address for device in devices]
