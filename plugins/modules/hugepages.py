#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep hugetlb pools at their declared counts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hugepages
short_description: Keeps hugetlb pools at their declared counts, now and at the next boot
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Sets the number of hugetlb pages for each page size, of the whole host or of single NUMA nodes, and reads back what
    the kernel really gave. Fewer than asked is a failure, and the previous counts are put back.
  - Before it gives up, it asks the kernel to compact memory and tries again.
  - The list is the whole declared state. The counts of the host are recorded before they are first changed, and a
    page size or node that is no longer declared goes back to its recorded count, as everything does with
    O(state=absent).
  - Pages in use are never taken away. Shrinking a pool below what is in use is refused.
  - A converged host is only read.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.state
attributes:
  check_mode:
    details:
      - Whether the kernel finds enough contiguous memory is only known when it is asked, so a shortfall is not
        predicted, unless the host or the node has too little memory altogether.
options:
  pools:
    description:
      - The pools. Declare a page size either once without O(pools[].node), or for nodes.
    type: list
    elements: dict
    default: []
    suboptions:
      size:
        description:
          - The page size, as V(2M), V(1G) or a number of bytes.
        type: str
        required: true
      count:
        description:
          - The number of pages.
        type: int
        required: true
      node:
        description:
          - The NUMA node. Without it, O(pools[].count) is the host's total and the kernel spreads it over the nodes.
        type: int
  persistent:
    description:
      - Whether the same pools are reserved at every boot, by a file in C(/etc/tmpfiles.d).
    type: bool
    default: true
  state:
    description:
      - V(present) keeps the declared pools, V(absent) gives back the recorded counts and removes the files.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: baremetal.noiommu.noiommu_info
"""

EXAMPLES = r"""
- name: Reserve 1 GiB in pages of 2 MiB, wherever there is room
  baremetal.noiommu.hugepages:
    pools:
      - size: 2M
        count: 512

- name: Reserve large pages on the node of the network card
  baremetal.noiommu.hugepages:
    pools:
      - {size: 1G, count: 4, node: 0}
      - {size: 1G, count: 0, node: 1}

- name: Give everything back
  baremetal.noiommu.hugepages:
    state: absent
"""

RETURN = r"""
pools:
  description: The declared pools as they are now, or in check mode as they would be.
  returned: success
  type: list
  elements: dict
  contains:
    size:
      description: The page size.
      type: str
      sample: 2M
    size_bytes:
      description: The page size in bytes.
      type: int
      sample: 2097152
    node:
      description: The NUMA node, or V(null) for the host's total.
      type: int
    requested:
      description: The declared count.
      type: int
    actual:
      description: The count that the kernel keeps.
      type: int
    free:
      description: Pages that nobody uses.
      type: int
    shortfall:
      description: Pages missing from the declared count.
      type: int
before:
  description: Counts by pool before the run.
  returned: success
  type: dict
  sample: {"2M": 0}
after:
  description: Counts by pool after the run.
  returned: success
  type: dict
  sample: {"2M": 512}
files:
  description: The files that were or would be changed.
  returned: success
  type: list
  elements: str
left_over:
  description:
    - Files on hugetlbfs that ended DPDK processes left behind and that were removed, since a shrinking pool needs their pages.
    - Files that a process has locked, as every running DPDK does, are never removed.
  returned: success
  type: list
  elements: str
  sample: [/dev/hugepages/rtemap_0]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.baremetal.noiommu.plugins.module_utils._errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages import Plan

ARGUMENTS = {
    "pools": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "size": {"type": "str", "required": True},
            "count": {"type": "int", "required": True},
            "node": {"type": "int"},
        },
    },
    "persistent": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def run(module: AnsibleModule, root: Root) -> None:
    """Plan, apply unless in check mode, and report."""
    plan = Plan(root, module.params["pools"], module.params["persistent"], module.params["state"] == "present")
    if plan.changed and not module.check_mode:
        plan.apply()
    result = {
        "changed": plan.changed,
        "pools": plan.report(predicted=module.check_mode),
        "before": plan.state(plan.before),
        "after": plan.state({one.pool: one.count for one in plan.targets}),
        "files": plan.files.changed_paths,
        "left_over": [one.path for one in plan.left_over],
    }
    if module._diff:
        result["diff"] = plan.diff()
    module.exit_json(**result)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        run(module, Root())
    except HostError as exc:
        module.fail_json(msg=str(exc), refusals=[exc.as_dict()])


if __name__ == "__main__":
    main()
