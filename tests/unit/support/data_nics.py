# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with two NICs for the data plane."""

from __future__ import annotations

from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request

NIC, VIRTIO, DISK = "0000:00:04.0", "0000:00:05.0", "0000:00:06.0"
BOTH = Request([{"address": NIC}, {"interface": "eth2"}], accept_unsafe=True)


def state(change: BindingChange) -> dict:
    return {device["address"]: device for device in change.after()["devices"]}
