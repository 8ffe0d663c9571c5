#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep hugetlb pools and mounts as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hugepages
short_description: Keeps hugetlb pools and mounts as declared, now and at every boot
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Sets the number of hugetlb pages for each page size, of the whole host or of single NUMA nodes, and reads back what
    the kernel really gave. Fewer than declared is a failure, and the previous counts are restored.
  - Before it gives up, it asks the kernel to compact memory and tries again.
  - At every boot, a unit reserves the same pages before anything else fragments the memory, and fails visibly if it
    gets fewer. It runs after sysctl. If a file of sysctl sets another number, a warning names file and line.
  - Pages of 1 GiB and more that the running kernel cannot find are put on the kernel command line, as
    M(baremetal.noiommu.kernel_cmdline) does it, and RV(reboot_required) says so. The live counts stay as they are until
    then. Where the host or node has too little free memory, that is known in advance, and check mode says so as well.
  - Mounts hugetlbfs, live and by mount units. A mount that is no longer declared is unmounted. Nothing is ever mounted
    over a directory that is not empty or over another mount, and no mount that holds files is unmounted. The exception
    are files that an ended DPDK left behind and that no process has locked; they are removed, and RV(left_over) names
    them.
  - Each list is the whole declared state. The counts of the host are recorded before they are first changed, and a
    page size or node that is no longer declared gets its recorded count back, as everything does with
    O(state=absent). A page size or node that was never declared is left alone; a size without a node means all nodes.
  - Pages in use are never taken away. Shrinking a pool below what is in use is refused.
  - A converged host is only read.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.state
attributes:
  check_mode:
    details:
      - Whether the kernel finds enough contiguous memory is only known when it is asked, so a shortfall is not
        predicted, unless the host or the node has too little memory altogether, or too little that is free or can be
        freed.
options:
  pools:
    description:
      - The pools. Declare a page size either once without O(pools[].node), or for nodes.
      - Without this option, the pools are left alone.
    type: list
    elements: dict
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
      - Whether the same pools are reserved at every boot, by the unit C(noiommu-hugepages.service).
      - Without it, nothing is put on the kernel command line either, and a shortfall is a failure.
    type: bool
    default: true
  mounts:
    description:
      - The mounts of hugetlbfs. Without this option, mounts are left alone.
    type: list
    elements: dict
    suboptions:
      path:
        description:
          - Where, not through a symbolic link. Missing directories are made, and removed with the mount.
        type: path
        required: true
      size:
        description:
          - The size of its pages, as V(2M) or V(1G).
        type: str
        required: true
      mode:
        description:
          - Who may make files there, in octal digits with a leading zero, and in quotes. Without quotes, YAML makes
            another number of it, which is refused.
        type: str
        default: '0770'
      uid:
        description:
          - The number of the owner.
        type: int
      owner:
        description:
          - The name of the owner.
        type: str
      gid:
        description:
          - The number of the group.
        type: int
      group:
        description:
          - The name of the group, which has to exist; in check mode it may be one of O(groups_to_come).
        type: str
      limit:
        description:
          - The most that all its files together may hold, as a size. The pool is the limit without it.
        type: str
  groups_to_come:
    description:
      - Groups that an earlier task of the same run makes, so that in check mode they do not exist yet.
    type: list
    elements: str
    default: []
  host_memory:
    description:
      - How much memory the host keeps for itself beside all pools, as a size of at least V(128M). Where the pools would
        grow and leave less, nothing is changed.
      - Without it, a 16th of all memory, but at least 256 MiB and at most 4 GiB. Of each of several NUMA nodes a 32nd
        is kept, at least 64 MiB and at most 1 GiB, and no more than its share of this option.
    type: str
  state:
    description:
      - V(present) keeps what is declared. V(absent) unmounts, restores the recorded counts and removes the files.
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

- name: Give the data plane's group a place for pages of 1 GiB, and leave the pools alone
  baremetal.noiommu.hugepages:
    mounts:
      - {path: /dev/hugepages-1G, size: 1G, mode: '0770', group: dataplane}

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
      description: Free pages.
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
reboot_required:
  description: Whether pages are missing that the next boot will provide.
  returned: success
  type: bool
boot_parameters:
  description: The parameters that reserve pages on the kernel command line.
  returned: success
  type: list
  elements: str
  sample: ["hugepagesz=1G hugepages=0:2"]
mounts:
  description: The declared mounts, with names of users and groups as numbers.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Where.
      type: str
    size:
      description: The size of its pages.
      type: str
    mode:
      description: Its mode.
      type: str
    uid:
      description: The number of its owner.
      type: int
    gid:
      description: The number of its group.
      type: int
    limit:
      description: The most that its files may hold, in bytes.
      type: int
files:
  description: The files that were or would be changed.
  returned: success
  type: list
  elements: str
left_over:
  description:
    - Files on hugetlbfs that ended DPDK processes left behind and that were removed, since a shrinking pool needs their
      pages.
    - Files that a process has locked, as every running DPDK does, are never removed.
  returned: success
  type: list
  elements: str
  sample: [/dev/hugepages/rtemap_0]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.change import HugepagesPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import MOUNTS_SPEC, POOLS_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._run import converge, run

ARGUMENTS = {
    "pools": POOLS_SPEC,
    "persistent": {"type": "bool", "default": True},
    "mounts": MOUNTS_SPEC,
    "groups_to_come": {"type": "list", "elements": "str", "default": []},
    "host_memory": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def hugepages(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Keep pools and mounts as declared; absent is to have none."""
    params, present = module.params, module.params["state"] == "present"
    plan = HugepagesPlan(
        root,
        runner,
        params["pools"] if present else [],
        params["mounts"] if present else [],
        params["persistent"],
        params["groups_to_come"] if present and module.check_mode else [],
        params["host_memory"],
    )
    return {**converge(module, plan), **plan.report(predicted=module.check_mode)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    run(module, lambda root, runner: hugepages(module, root, runner))


if __name__ == "__main__":
    main()
