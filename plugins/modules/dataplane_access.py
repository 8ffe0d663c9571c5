#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give one group the VFIO device nodes and the locked memory that a data plane needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dataplane_access
short_description: Gives one group the VFIO device nodes and the locked memory that a data plane needs
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Makes a system group if it is missing, adds users to it, and gives it C(/dev/vfio/N) and C(/dev/vfio/noiommu-N),
    now and by a udev rule for every later one.
  - VFIO pins the memory that a device may reach and counts it as locked. The group gets a limit for that, which holds
    for sessions that start after this.
  - Whoever may open such a node can use the device. Where no IOMMU protects the host, that means reading and writing
    all of its memory. An insecure group also needs the capability C(CAP_SYS_RAWIO), which no group gives.
  - What this module makes is recorded. O(state=absent) takes back that, and nothing else.
  - A converged host is only read.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.state
options:
  group:
    description:
      - The group. Required with O(state=present).
    type: str
  gid:
    description:
      - The group's number, where it has to be the same on all hosts. The number of an existing group is never changed.
    type: int
  users:
    description:
      - Existing users to make members. A user whom this module added and who is no longer listed is taken out again.
    type: list
    elements: str
    default: []
  memlock:
    description:
      - How much memory a process of the group may lock, V(unlimited) or a number of bytes.
    type: str
    default: unlimited
  state:
    description:
      - V(present) grants, V(absent) takes back what was granted.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: baremetal.noiommu.vfio_binding
"""

EXAMPLES = r"""
- name: Let the group dataplane use the devices
  baremetal.noiommu.dataplane_access:
    group: dataplane
    users: [vpp]

- name: Take it back
  baremetal.noiommu.dataplane_access:
    state: absent
"""

RETURN = r"""
before:
  description: The group with its members, and the device nodes, before the run.
  returned: success
  type: dict
  sample:
    groups: {}
    nodes: {"/dev/vfio/0": {"uid": 0, "gid": 0, "mode": "0600"}}
after:
  description: The same after the run. In check mode, V(null) stands for the number of a group that is not made yet.
  returned: success
  type: dict
  sample:
    groups: {"dataplane": {"gid": 990, "members": ["vpp"]}}
    nodes: {"/dev/vfio/0": {"uid": 0, "gid": 990, "mode": "0660"}}
files:
  description: The files that were or would be changed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.baremetal.noiommu.plugins.module_utils._access import Plan, parse_memlock
from ansible_collections.baremetal.noiommu.plugins.module_utils._errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._fs import Root, Runner

ARGUMENTS = {
    "group": {"type": "str"},
    "gid": {"type": "int"},
    "users": {"type": "list", "elements": "str", "default": []},
    "memlock": {"type": "str", "default": "unlimited"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def run(module: AnsibleModule, root: Root, runner: Runner) -> None:
    """Plan, apply unless in check mode, and report."""
    params = module.params
    memlock = parse_memlock(params["memlock"])
    if params["state"] == "present":
        plan = Plan(root, runner, params["group"], params["gid"], params["users"], memlock)
    else:
        plan = Plan(root, runner, None, None, [], None)
    diff = plan.diff()
    if plan.changed and not module.check_mode:
        plan.apply()
    for warning in plan.warnings:
        module.warn(warning)
    result = {"changed": plan.changed, "before": plan.before, "after": plan.after, "files": plan.files.changed_paths}
    if module._diff:
        result["diff"] = diff
    module.exit_json(**result)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_if=[("state", "present", ("group",))], supports_check_mode=True
    )
    try:
        run(module, Root(), Runner())
    except HostError as exc:
        module.fail_json(msg=str(exc), refusals=[exc.as_dict()])


if __name__ == "__main__":
    main()
