#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Grant a group, its members, services and programs exactly what a data plane needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dataplane_access
short_description: Grants a group, users, services and programs exactly what their data plane application needs
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Creates a system group if it is missing, adds users to it, and gives it the device nodes of the data plane, now and
    by a udev rule for every later one, and C(/dev/hugepages), now and at every boot.
  - The nodes are C(/dev/noiommu), and C(/dev/vfio/N) or C(/dev/vfio/noiommu-N) of the devices that
    M(baremetal.noiommu.vfio_binding) has bound. Those of other devices are left alone. C(/dev/vfio/vfio), which does
    nothing by itself, gets the kernel's own mode, V(0666), again where the group could not open it.
  - VFIO pins the memory that a device may reach and counts it as locked. The group gets a limit for that, which holds
    for sessions that start after this. Services get theirs by a drop-in.
  - A user who may open such a node can use the device. Where no IOMMU protects the host, that means reading and writing
    all of its memory. An insecure device also asks for capabilities, which no group gives. Services get them as ambient
    capabilities by a drop-in, programs as capabilities of their file. Which ones depends on the application's profile
    and on the host's backend. With a working IOMMU, DPDK and SPDK need none at all. RV(grants) says who got what and
    why.
  - What this module creates and grants is recorded. O(state=absent) revokes that, and nothing else.
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
      - Existing users to make members. A user whom this module added and who is no longer listed is removed again.
    type: list
    elements: str
    default: []
  memlock:
    description:
      - How much memory a process of the group or of a service may lock, V(unlimited) or a number of bytes.
      - With a number, C(CAP_IPC_LOCK), which lifts the limit, is never granted.
    type: str
    default: unlimited
  hugetlbfs:
    description:
      - Whether the group may keep files in C(/dev/hugepages), where systemd mounts the hugetlbfs. Other users then may
        not even list it. A mount that already belongs to another group is left as it is.
      - Other mounts get their group where they are declared, see M(baremetal.noiommu.hugepages).
    type: bool
    default: true
  services:
    description:
      - The systemd services of the data plane. Each gets a drop-in with the group, the limit on locked memory and the
        capabilities that it needs, and starts after the devices are bound. A service that is no longer listed loses it.
      - It has to be the service that runs the application. One that only stands for others, such as Debian's
        C(openvswitch-switch), or that starts a container, is refused.
      - A running service is not restarted. RV(restart) says which ones have to be.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The service, such as V(ovs-vswitchd.service). The suffix may be left out.
        type: str
        required: true
      profile: &profile
        description: What its application is, O(profile) by default.
        type: str
        choices: [dpdk, spdk, ovs, custom]
      capabilities: &capabilities
        description: What the profile V(custom) needs, O(capabilities) by default.
        type: list
        elements: str
  binaries:
    description:
      - Programs that members of the group start by themselves. Where the backend asks for capabilities, the file gets
        them, belongs to the group, and only the group can execute it. It is left alone if none are needed.
      - On a host without an IOMMU, a user who may start such a program is as powerful as root. DPDK also loads any
        library that its options name.
      - Only a data plane application is accepted, one that uses VFIO itself or in a library, and only where nobody but
        root can replace it. With the profile V(custom), other programs are accepted if they are not part of the base
        system and start no others.
      - The kernel clears the environment of such a program of C(LD_LIBRARY_PATH) and the like, and ignores the
        capabilities of scripts and on filesystems that are mounted nosuid or keep no extended attributes. Those are
        refused.
      - An upgrade of the package puts a new file in place, without the capabilities. The next run gives them again.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The program's path. A link stands for its target.
        type: str
        required: true
      profile: *profile
      capabilities: *capabilities
  profile:
    description:
      - What the services and binaries are.
      - V(dpdk) and V(spdk) use physical addresses where there is no IOMMU, and read them from C(/proc/self/pagemap).
        V(ovs) is V(dpdk) with what Open vSwitch needs for the kernel's own network.
        V(custom) gets what O(capabilities) lists, on every backend.
    type: str
    choices: [dpdk, spdk, ovs, custom]
    default: dpdk
  capabilities:
    description:
      - What applications of the profile V(custom) need, with or without C(CAP_).
    type: list
    elements: str
    default: []
  backend:
    description:
      - The backend that serves the devices. V(auto) takes the one that M(baremetal.noiommu.noiommu_info) would.
    type: str
    choices: [auto, iommu, builtin, dkms]
    default: auto
  accept_unsafe:
    description:
      - Whether insecure passthrough is accepted on this host. Without it, services and binaries are refused where
        there is no working IOMMU, since what they need there amounts to root.
    type: bool
    default: false
  state:
    description:
      - V(present) grants, V(absent) revokes what was granted.
      - What somebody has changed since it was granted stays as it is, and a warning says so.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: baremetal.noiommu.vfio_binding
  - module: baremetal.noiommu.hugepages
"""

EXAMPLES = r"""
- name: Let the group dataplane use the devices
  baremetal.noiommu.dataplane_access:
    group: dataplane
    users: [vpp]

- name: Give Open vSwitch, a forwarder of our own and testpmd what each of them needs
  baremetal.noiommu.dataplane_access:
    group: dataplane
    users: [alice]
    services:
      - name: ovs-vswitchd
        profile: ovs
      - name: forwarder
        profile: dpdk
    binaries:
      - path: /usr/bin/dpdk-testpmd
    accept_unsafe: true
  register: access

- name: Restart services that were started before they got their grants
  ansible.builtin.systemd_service:
    name: "{{ item.service }}"
    state: restarted
  loop: "{{ access.restart }}"

- name: Revoke everything
  baremetal.noiommu.dataplane_access:
    state: absent
"""

RETURN = r"""
before:
  description: The group with its members, the device nodes and the programs, before the run.
  returned: success
  type: dict
  sample:
    groups: {}
    nodes: {"/dev/vfio/0": {"uid": 0, "gid": 0, "mode": "0600"}}
    binaries: {"/usr/bin/dpdk-testpmd": {"uid": 0, "gid": 0, "mode": "0755", "capabilities": []}}
after:
  description: The same after the run. In check mode, V(null) stands for the number of a group that is not made yet.
  returned: success
  type: dict
  sample:
    groups: {"dataplane": {"gid": 990, "members": ["vpp"]}}
    nodes: {"/dev/vfio/0": {"uid": 0, "gid": 990, "mode": "0660"}}
    binaries: {"/usr/bin/dpdk-testpmd": {"uid": 0, "gid": 990, "mode": "0750", "capabilities": ["CAP_SYS_RAWIO"]}}
files:
  description: The files that were or would be changed.
  returned: success
  type: list
  elements: str
grants:
  description: Who got what, and why.
  returned: success
  type: list
  elements: dict
  contains:
    to:
      description: The group, user, service or binary.
      type: str
      sample: service forwarder.service
    what:
      description: What was granted.
      type: str
      sample: CAP_SYS_ADMIN
    why:
      description: What it needs that for.
      type: str
      sample: "IOVA=PA: /proc/self/pagemap shows no physical address without it"
restart:
  description: Running services that were started before they got what they need.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: The service.
      type: str
    evidence:
      description: What its processes lack.
      type: list
      elements: str
"""

from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import (
    GRANTS_SPEC,
    Request,
    parse_memlock,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.plan import AccessPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._run import converge, run

ARGUMENTS = {
    **GRANTS_SPEC,
    "backend": {"type": "str", "choices": ["auto", "iommu", "builtin", "dkms"], "default": "auto"},
    "accept_unsafe": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def dataplane_access(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Grant what is declared; absent is to grant nothing."""
    request = Request()
    if module.params["state"] == "present":
        given = {key: value for key, value in module.params.items() if key in Request._fields}
        request = Request(**{**given, "memlock": parse_memlock(given["memlock"])})
    plan = AccessPlan(root, runner, request)
    result = converge(module, plan)
    restart = plan.to_restart()
    for service in restart:
        module.warn("Restart %s: %s." % (service["service"], "; ".join(service["evidence"])))
    return {**result, "files": plan.changed_paths, "grants": plan.grants(), "restart": restart}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_if=[("state", "present", ("group",))], supports_check_mode=True
    )
    run(module, partial(dataplane_access, module))


if __name__ == "__main__":
    main()
