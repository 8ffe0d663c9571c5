# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A card whose driver makes virtual functions."""

from __future__ import annotations

from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PF, MAC = "0000:01:00.0", "52:54:00:00:00:20"
VFS = [Tree.vf_address(PF, index) for index in range(8)]
NUMBER, AUTOPROBE = ("/sys/bus/pci/devices/%s/sriov_%s" % (PF, name) for name in ("numvfs", "drivers_autoprobe"))


def want(vfs: int, *taken: str, **more) -> Request:
    devices = [{"pf": MAC, "vf": list(taken)}] if taken else []
    return Request(devices, accept_unsafe=True, sriov=[{"pf": "pf0", "vfs": vfs}], **more)


THREE_OF_FOUR = want(4, "0-2")


def number(host: Machine) -> int:
    return host.root.read_int(NUMBER)
