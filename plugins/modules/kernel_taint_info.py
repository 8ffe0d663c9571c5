#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decode the kernel's taint mask and say who set it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_taint_info
short_description: Decodes the kernel's taint and says whether insecure passthrough caused it
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Decodes C(/proc/sys/kernel/tainted) into named flags.
  - For each flag it says, where the host still knows, which module, process or device set it and since when.
    Sources are C(/sys/module/*/taint) and the kernel log.
  - Says whether a process was given a device without the protection of an IOMMU since the last boot.
  - A taint stays until the next boot. Releasing the devices does not clear it.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.info
notes:
  - Reading the kernel log needs root where C(kernel.dmesg_restrict) is on. Without it, attributions may be missing and
    RV(insecure_passthrough) may be V(null).
seealso:
  - module: baremetal.noiommu.noiommu_info
"""

EXAMPLES = r"""
- name: Read the taint
  baremetal.noiommu.kernel_taint_info:
  register: taint

- name: Refuse hosts on which a process has had a device without protection
  ansible.builtin.assert:
    that: taint.insecure_passthrough is false
    fail_msg: "{{ taint.evidence | join('; ') }}"
"""

RETURN = r"""
mask:
  description: The taint mask; V(0) if the kernel is not tainted.
  returned: success
  type: int
  sample: 12352
flags:
  description: The flags that are set, lowest bit first.
  returned: success
  type: list
  elements: dict
  contains:
    bit:
      description: The bit's number.
      type: int
      sample: 6
    value:
      description: The bit's value in the mask.
      type: int
      sample: 64
    letter:
      description: The letter in the kernel's own messages.
      type: str
      sample: U
    name:
      description: A short name.
      type: str
      sample: user
    meaning:
      description: What the kernel documents about it.
      type: str
    attribution:
      description: Who set it, as far as the host still knows.
      type: list
      elements: dict
      contains:
        kind:
          description: V(module), V(process), V(device) or V(log).
          type: str
        name:
          description: The name of the module, process, device or option.
          type: str
        pid:
          description: The process number, where there is one.
          type: int
        device:
          description: The PCI address of the device that it is about, where there is one.
          type: str
          sample: "0000:65:00.0"
        since:
          description: When it happened (UTC), where known.
          type: str
          sample: "2026-01-31T12:00:00Z"
        evidence:
          description: The file and what it says.
          type: str
        insecure_passthrough:
          description: Whether this is about a device given out without protection.
          type: bool
    not_attributed:
      description: Why there is no attribution, if there is none.
      type: str
insecure_passthrough:
  description:
    - Whether a process was given a device without protection since the last boot.
    - V(null) means not known. Bit 6 is set, which other things set too, and the kernel log has lost its beginning.
  returned: success
  type: bool
evidence:
  description: What RV(insecure_passthrough) rests on.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._answer import answer
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.taint import report


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    answer(module, lambda root: {"changed": False, **report(root)})


if __name__ == "__main__":
    main()
