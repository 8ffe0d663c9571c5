#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: declaration
short_description: Refuses variables of a host that this collection would ignore or could not use
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Looks at the names of all variables that the host has here, from the inventory, extra variables, the play and roles.
  - A name that begins with C(noiommu_) and is not a variable of this collection is refused, with the nearest one. So is
    one of its variables with a prefix that is nearly this, as C(noiomu_devices).
  - The value of each variable is checked as a whole, with the place of whatever is wrong in it, as
    C(noiommu_access.memlok) or C(noiommu_devices[2]). What depends on the host is part of its verdict, see
    M(baremetal.noiommu.noiommu_info).
  - Variables that add up, as C(noiommu_devices) and C(noiommu_devices_storage), are also checked together, see
    P(baremetal.noiommu.declared#lookup). What two groups set differently under one name is refused where neither group
    is inside the other, and so is in the inventory what only an extra variable can set.
  - Facts of the host that have the name of a variable of this collection are refused as well. They are answers of the
    host itself, and would decide over the controller.
  - Runs on the controller and does not connect to the host. All problems of a host are in one message.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.info
options:
  refuse:
    description:
      - Whether the task fails where something is wrong. Otherwise it warns.
    type: bool
    default: true
  tags:
    description:
      - Which tags of the command line are refused where it names a playbook of this collection.
      - V(steps) refuses all but the names of RV(steps), V(none) all, V(any) none.
    type: str
    choices: [any, steps, none]
    default: any
seealso:
  - module: baremetal.noiommu.noiommu_info
  - plugin: baremetal.noiommu.declared
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Refuse misspelt variables before anything is asked of the host
  baremetal.noiommu.declaration:
"""

RETURN = r"""
steps:
  description:
    - The steps that C(--tags) and C(--skip-tags) choose, V(preflight) always among them unless there are none.
    - A tag of a role or play that is on the command line chooses all steps.
  returned: success
  type: list
  elements: str
  sample: [preflight, kmod, hugepages, devices, access]
refusals:
  description: Everything that is wrong.
  returned: failure
  type: list
  elements: dict
  contains:
    code:
      description:
        - The kind of reason, V(unknown_variable), V(declaration), V(contested_variable), V(tags) or V(facts_override).
      type: str
    message:
      description: What is wrong.
      type: str
    evidence:
      description: What was seen.
      type: list
      elements: str
    remedy:
      description: What to do about it.
      type: str
"""
