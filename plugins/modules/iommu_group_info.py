#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iommu_group_info
short_description: Shows IOMMU groups and how well each PCI device is confined
version_added: 1.0.0
description:
  - Lists the host's IOMMU groups and, for every PCI device, a safety class that says what confines its DMA.
  - V(isolated) means that a hardware IOMMU confines the device to the memory its user mapped.
  - V(unsafe) means that the device has a group without any protection, by this collection's kernel module or by VFIO's
    own no-IOMMU mode. A process that drives it can read and write all memory of the host.
  - V(none) means that the device has no group, so that VFIO cannot hand it out.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.info
options:
  devices:
    description:
      - PCI addresses (BDFs) to report on, such as V(0000:04:00.0). All devices are reported if this is not given.
    type: list
    elements: str
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
"""

EXAMPLES = r"""
- name: See which devices are confined by a hardware IOMMU
  baremetal.noiommu.iommu_group_info:
  register: result

- name: Make sure that a device is isolated
  ansible.builtin.assert:
    that: item.safety == 'isolated'
    fail_msg: "{{ item.address }}: {{ item.reason }}"
  loop: "{{ result.devices | selectattr('address', 'equalto', '0000:04:00.0') }}"
"""

RETURN = r"""
groups:
  description: The IOMMU groups, by number. With O(devices), those of the given devices.
  returned: success
  type: list
  elements: dict
  contains:
    group:
      description: The group's number. It may change at every boot.
      type: int
    name:
      description: The group's name, V(none) for those of a hardware IOMMU.
      type: str
      sample: noiommu
    domain_type:
      description: The type of the group's default domain.
      type: str
      sample: identity
    devices:
      description: The addresses of its devices.
      type: list
      elements: str
    drivers:
      description: The drivers bound to its devices.
      type: list
      elements: str
    chardev:
      description: The VFIO character device, if it exists.
      type: str
      sample: /dev/vfio/7
    safety:
      description: V(isolated) or V(unsafe).
      type: str
devices:
  description: The PCI devices, by address.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The PCI address (BDF).
      type: str
      sample: "0000:04:00.0"
    group:
      description: The number of its group.
      type: int
    group_name:
      description: The name of its group.
      type: str
    domain_type:
      description: The type of its group's default domain.
      type: str
    driver:
      description: The bound driver.
      type: str
      sample: vfio-pci
    iommu:
      description: The IOMMU node it hangs on.
      type: str
      sample: dmar0
    chardev:
      description: The VFIO character device of its group, if it exists.
      type: str
    safety:
      description: V(isolated), V(unsafe) or V(none).
      type: str
    reason:
      description: Why the device is in this safety class.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._answer import answer
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.selector_errors import no_match
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.iommu import group_report
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus, normalise_bdf


def report(root: Root, addresses: list[str] | None) -> dict:
    """Return the groups and devices, of all devices or of the given ones."""
    bus = PciBus(root)
    groups, devices = group_report(root, bus)
    if addresses is None:
        return {"groups": groups, "devices": devices}
    wanted = {normalise_bdf(address) for address in addresses}
    for address in sorted(wanted - set(bus.devices)):
        raise no_match("the address %s" % address, bus)
    devices = [device for device in devices if device["address"] in wanted]
    numbers = {device["group"] for device in devices}
    return {"groups": [group for group in groups if group["group"] in numbers], "devices": devices}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"devices": {"type": "list", "elements": "str"}},
        supports_check_mode=True,
    )
    answer(module, lambda root: {"changed": False, **report(root, module.params["devices"])})


if __name__ == "__main__":
    main()
