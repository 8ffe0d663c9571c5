#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep parameters on the kernel command line of the next boot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_cmdline
short_description: Keeps parameters on the kernel command line of the next boot
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Adds parameters to the kernel command line, and removes others, by the distribution's own mechanism, and says
    whether the running kernel still has to be rebooted for that. It never reboots.
  - On Debian and Ubuntu by a fragment of its own in C(/etc/default/grub.d) and C(update-grub); C(/etc/default/grub) is
    left as it is, and recovery entries boot without the parameters. On RHEL and its kin by C(grubby). Where
    systemd-boot boots, by C(/etc/kernel/cmdline) and C(kernel-install), which makes the entry of each installed kernel
    again.
  - Unified kernel images are served the same way where C(kernel-install) has C(ukify) make them (C(layout=uki)).
    Otherwise they are refused with the reason, as are signed ones where C(/etc/kernel/uki.conf) names no key to sign
    them again.
  - What was there before is recorded, and comes back with O(state=absent).
  - Debian writes no C(/etc/kernel/cmdline), and C(kernel-install) then takes the line of the running kernel. There
    O(state=absent) makes the entries without the parameters, and removes the file. A kernel that is installed after
    that and before the reboot gets the running kernel's parameters once more.
  - A converged host is only read. In particular C(update-grub) runs only where something differs, and again where an
    earlier run was killed before it.
  - Only GRUB on Debian is proven on machines. The others are covered by unit tests.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.state
attributes:
  check_mode:
    details:
      - Whether the boot loader's own tool will succeed is only known when it has run.
options:
  parameters:
    description:
      - The parameters, as a list of strings or as a dictionary of names and values. One string of the list may hold
        several words that belong together in this order, as V(hugepagesz=1G hugepages=4) does.
      - They are put at the end of the line. Where a name is there already with another value, both remain, and the
        kernel takes the last one for most parameters; use O(without) for the others.
      - This is the whole list of the set O(name). A parameter that is no longer listed is taken off again.
    type: raw
    default: []
  without:
    description:
      - Words that are taken off the line, exactly as written, such as V(iommu=off). They come back when they are listed
        no more.
    type: list
    elements: str
    default: []
  name:
    description:
      - The name of this set of parameters. Several sets live side by side.
      - The roles of this collection use V(iommu) and V(hugepages).
    type: str
    default: custom
  state:
    description:
      - V(present) keeps the set as it is declared, V(absent) removes all of it.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: baremetal.noiommu.hugepages
  - module: baremetal.noiommu.noiommu_info
"""

EXAMPLES = r"""
- name: Have the kernel use the Intel IOMMU
  baremetal.noiommu.kernel_cmdline:
    name: iommu
    parameters: [intel_iommu=on]
    without: [intel_iommu=off, iommu=off]
  register: cmdline

- name: Reboot where the running kernel was booted without it
  ansible.builtin.reboot:
  when: cmdline.reboot_required

- name: Write the values as a dictionary, quoted so that YAML does not make a truth value of them
  baremetal.noiommu.kernel_cmdline:
    parameters:
      intel_iommu: 'on'
      nosmt:

- name: Remove all of it
  baremetal.noiommu.kernel_cmdline:
    name: iommu
    state: absent
"""

RETURN = r"""
mechanism:
  description:
    - The mechanism that changes the line, V(grub), V(grubby), V(systemd-boot) or V(unified-kernel-image); V(null) if
      there was nothing to look at.
  returned: success
  type: str
  sample: grub
before:
  description: The line that the next boot would have had.
  returned: success
  type: str
after:
  description: The line that the next boot has, or in check mode would have.
  returned: success
  type: str
running:
  description: The line of the running kernel.
  returned: success
  type: str
reboot_required:
  description: Whether the running kernel differs from the next one in a parameter of this set.
  returned: success
  type: bool
files:
  description: The files that were or would be changed, besides those that the boot loader's tool makes.
  returned: success
  type: list
  elements: str
  sample: [/etc/default/grub.d/zz-noiommu-iommu.cfg]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.command_line import CommandLinePlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.words import parse
from ansible_collections.baremetal.noiommu.plugins.module_utils._run import converge, run

ARGUMENTS = {
    "parameters": {"type": "raw", "default": []},
    "without": {"type": "list", "elements": "str", "default": []},
    "name": {"type": "str", "default": "custom"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def kernel_cmdline(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Keep the set of parameters as declared."""
    params = module.params
    wanted = parse(params["parameters"], params["without"]) if params["state"] == "present" else None
    line = CommandLinePlan(root, runner, params["name"], wanted)
    return {**converge(module, line), **line.report()}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    run(module, lambda root, runner: kernel_cmdline(module, root, runner))


if __name__ == "__main__":
    main()
