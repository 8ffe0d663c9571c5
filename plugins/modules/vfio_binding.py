#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vfio_binding
short_description: Binds PCI devices to VFIO, either all that are listed or none
version_added: 1.0.0
description:
  - Binds all listed PCI devices to C(vfio-pci) with the backend that the host offers, now and at every boot.
  - The list is the whole declared state. A device that an earlier run bound and that is no longer listed is released
    to the driver that it had before the first run.
  - An empty list releases all. A list that is left out or V(null) does not. It is refused, with V(undeclared), on a
    host where an earlier run bound something.
  - The list is one transaction. If one device cannot be bound, everything that this run did is put back, and the task
    fails. A device that cannot be given back keeps no other. It stays as it is, with a warning, in RV(unreleased).
  - One run at a time works on a host. Another one, and the unit at boot, waits for it for a minute, then fails.
  - Virtual functions are part of it. They are created without starting the host's drivers, and removed with the rest.
  - A device is refused, and nothing is changed, if it or anything on top of it (VLAN, bond, bridge, team, macvlan,
    ipvlan, also in containers; virtual functions; partitions, RAID, LVM) carries the live management connection, an
    address, a route of any family in any table, a PPPoE session, a disk that is mounted, swapped to, in use or named in
    C(/etc/fstab), or a part of a volume. An interface with anything on top of it, such as a bridge's port, is refused
    without any address as well. There is no option that overrides this.
  - Each bound device has names that stay the same at every boot, such as C(/dev/vfio/by-mac/52:54:00:12:34:56) and
    C(/dev/vfio/by-address/0000:04:00.0).
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.state
  - baremetal.noiommu._selectors
options:
  devices:
    description:
      - The devices, each entry by exactly one selector, which may mean several.
      - A device stays selected by its interface, MAC address or serial number while VFIO has it, although the host does
        not show that then.
      - V([]) gives all devices back. Left out or V(null), it means the same on a host where none was ever taken, and is
        refused on any other, unless O(state=absent).
    type: list
    elements: dict
  sriov:
    description:
      - How many virtual functions each physical one has. The list is the whole declared state, as O(devices) is.
        Left out, it is refused where numbers are recorded, too.
      - A physical function that is not listed any more gets the number back that it had before the first run.
      - The number of one that has virtual functions is changed only if none of them is guarded or in use, as the kernel
        destroys them all.
      - Settings of virtual functions are set before any driver sees them, at each boot again, and given back with the
        rest. A change that makes drivers reset a virtual function is refused while a process drives it.
      - A physical function may carry the host's own traffic. It must still have its addresses and routes after virtual
        ones were created; otherwise these are removed again.
    type: list
    elements: dict
  driver:
    description: The VFIO driver to bind to.
    type: str
    default: vfio-pci
  backend:
    description:
      - What makes an IOMMU group for the devices.
      - V(auto) takes V(iommu) where a hardware IOMMU works, else V(builtin) where the kernel has it, else V(dkms). It
        refuses a host that was brought up with V(iommu) and has no IOMMU any more.
      - V(iommu) is a hardware IOMMU. It is the only secure one.
      - V(builtin) is VFIO's own no-IOMMU mode, which the kernel may have been built without.
      - V(dkms) is this collection's kernel module C(noiommu), which must be installed before.
    type: str
    choices: [auto, iommu, builtin, dkms]
    default: auto
  accept_unsafe:
    description:
      - Whether insecure passthrough is accepted. V(builtin) and V(dkms) are refused without it.
      - Without an IOMMU, a device and the application that drives it can read and write all memory of the host.
    type: bool
    default: false
  persistent:
    description:
      - Whether the bindings come up at every boot before the network does, by a systemd unit that finds each device by
        its MAC address, serial number or slot, or by its address and its vendor and device number; a virtual function
        by its physical one and its index.
    type: bool
    default: true
  dpdk_pa_hint:
    description:
      - Whether the host's PCI devices carry the attribute that makes DPDK on x86 use physical addresses (IOVA=PA) by
        itself, with the backend V(dkms). C(--iova-mode=pa) always works.
    type: bool
    default: true
  insecure_until:
    description:
      - The last day on which insecure passthrough is accepted, as V(YYYY-MM-DD). The day ends at midnight UTC.
      - After it, no further device is bound with V(builtin) or V(dkms); bound devices stay as they are, also after
        reboots. Without a date there is no end.
    type: str
  state:
    description:
      - V(present) brings up the declared list.
      - V(absent) releases everything that was ever bound and removes every file that this module made. O(devices) and
        O(sriov) are then ignored.
    type: str
    choices: [present, absent]
    default: present
notes:
  - The original state of every device is kept in C(/var/lib/noiommu/originals.json) until it is released.
  - A run that gets SIGTERM, SIGINT or SIGHUP rolls everything back first. The next run finishes one that was killed,
    or rolls it back with O(state=absent).
seealso:
  - module: baremetal.noiommu.iommu_group_info
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
"""

EXAMPLES = r"""
- name: Give two NICs to the data plane, whatever the host's kernel offers
  baremetal.noiommu.vfio_binding:
    devices:
      - address: "0000:04:00.0"
      - mac: "52:54:00:12:34:56"
    accept_unsafe: true

- name: Every NIC of one kind, on hosts with an IOMMU only
  baremetal.noiommu.vfio_binding:
    devices:
      - vendor_device: "8086:10d3"
    backend: iommu

- name: Four virtual functions, made and bound at once
  baremetal.noiommu.vfio_binding:
    sriov:
      - pf: ens1f0
        vfs: 4
    devices:
      - pf: ens1f0
        count: 4

- name: Two virtual functions in a VLAN, with addresses that stay
  baremetal.noiommu.vfio_binding:
    sriov:
      - pf: ens1f0
        vfs: 2
        functions:
          - vf: ["0"]
            mac: "52:54:00:aa:00:00"
            trust: true
          - vf: ["1"]
            mac: "52:54:00:aa:00:01"
          - vlan: 100
    devices:
      - pf: ens1f0
        count: 2

- name: The first function of the card in slot 4, and an NVMe disk
  baremetal.noiommu.vfio_binding:
    devices:
      - slot: "4.0"
      - serial: S4EWNX0R123456
    backend: iommu

- name: An ENA with its low-latency queues at full speed, without a rebuilt VFIO
  baremetal.noiommu.vfio_binding:
    devices:
      - vendor_device: "1d0f:ec20"
        write_combining: [2]
    accept_unsafe: true

- name: Give everything back
  baremetal.noiommu.vfio_binding:
    state: absent
"""

RETURN = r"""
backend:
  description: The backend in use, none if no device is declared.
  returned: success
  type: str
  sample: dkms
before:
  description: The state of every device concerned, as it was found.
  returned: success
  type: dict
  contains: &state
    devices:
      description: The devices, by address.
      type: list
      elements: dict
      contains:
        address:
          description: The PCI address (BDF).
          type: str
        driver:
          description: The bound driver.
          type: str
        driver_override:
          description: The only driver allowed to bind.
          type: str
        iommu_group:
          description: The number of its IOMMU group. Check mode cannot know that of a group still to be made.
          type: int
        safety:
          description: V(isolated), V(unsafe) or V(none), see M(baremetal.noiommu.iommu_group_info).
          type: str
        write_combining:
          description: Its BARs that are write-combined.
          type: list
          elements: int
    sriov:
      description: The declared physical functions, and those that are declared no more.
      type: list
      elements: dict
      contains:
        pf:
          description: The physical function's PCI address.
          type: str
        vfs:
          description: How many virtual functions it has.
          type: int
        functions:
          description:
            - The settings that are declared of virtual functions, or given back; only where there are any.
            - V(vf) is the index. The other keys are those of O(sriov[].functions[]).
          type: list
          elements: dict
          sample: [{vf: 0, mac: "52:54:00:aa:00:00", trust: true}]
after:
  description: The state reached, or in check mode the one that would be.
  returned: success
  type: dict
  contains: *state
devices:
  description: The declared devices with what they were recognised by.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The PCI address (BDF).
      type: str
    vendor_device:
      description: Vendor and device number.
      type: str
    interfaces:
      description: The names of its network interfaces while the host drove it.
      type: list
      elements: str
    macs:
      description: Their permanent MAC addresses.
      type: list
      elements: str
    original_driver:
      description: The driver it had before it was taken.
      type: str
    backend:
      description: The backend that made its group.
      type: str
    driver:
      description: The bound driver.
      type: str
    driver_override:
      description: The only driver allowed to bind.
      type: str
    iommu_group:
      description: The number of its IOMMU group.
      type: int
    chardev:
      description: The VFIO character device of its group.
      type: str
    names:
      description: Links to it that are the same at every boot. A name that two devices would have is not made.
      type: list
      elements: str
    safety:
      description: Its safety class.
      type: str
    write_combining:
      description: Its BARs that are write-combined.
      type: list
      elements: int
steps:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: ["0000:04:00.0: unbind from e1000e"]
unreleased:
  description:
    - The devices that are not declared and could not be given back, such as one that a process uses. All others were.
      The next run tries again; until then C(noiommu-verify) and the report say so.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The PCI address (BDF).
      type: str
    reason:
      description: Why it was not given back.
      type: str
messages:
  description: What deserves attention although nothing failed, such as the taint that stays until reboot.
  returned: success
  type: list
  elements: str
refusals:
  description: Every reason against the request, or the failure.
  returned: failure
  type: list
  elements: dict
  contains:
    code:
      description: A stable name for the reason.
      type: str
      sample: guarded_device
    message:
      description: The cause.
      type: str
    evidence:
      description: What was seen, and where.
      type: list
      elements: str
    remedy:
      description: What to do about it.
      type: str
"""

import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._answer import Module
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.control import Kernel
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.selectors import ELEMENT_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.sriov import ELEMENT_SPEC as SRIOV_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._run import converge, run

ARGUMENTS = {
    # Without defaults: what is left out is not an empty list.
    "devices": ELEMENT_SPEC,
    "sriov": SRIOV_SPEC,
    "driver": {"type": "str", "default": "vfio-pci"},
    "backend": {"type": "str", "choices": ["auto", "iommu", "builtin", "dkms"], "default": "auto"},
    "accept_unsafe": {"type": "bool", "default": False},
    "persistent": {"type": "bool", "default": True},
    "dpdk_pa_hint": {"type": "bool", "default": True},
    "insecure_until": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def bind(module: Module, kernel: Kernel, context: GuardContext, request: Request) -> dict[str, Any]:
    """Bring the host to the declared state, or predict it, and return the module's result."""
    change = BindingChange(kernel, context, request, module.check_mode)
    steps = change.steps
    result = converge(module, change)
    return {
        **result,
        "backend": change.backend,
        "devices": change.resolved(result["after"]),
        "steps": steps,
        "unreleased": change.unreleased,
        "messages": change.messages,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = dict(module.params)
    if not re.match(r"^[A-Za-z0-9_-]+\Z", given["driver"]):
        module.fail_json(msg="%r is not a driver name. Remedy: use vfio-pci." % given["driver"])
    if given.pop("state") == "absent":
        given["devices"] = given["sriov"] = []
    request, ssh = Request(**given), os.environ.get("SSH_CONNECTION")
    run(module, lambda root, runner: bind(module, Kernel(root, runner), GuardContext(root, None, ssh), request))


if __name__ == "__main__":
    main()
