#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a host once and give one verdict on device passthrough."""

from __future__ import annotations

DOCUMENTATION = r"""
module: noiommu_info
short_description: Reads a host once and gives one verdict on device passthrough
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Says which backend serves this host, whether that is safe, and everything that speaks against it, each with what was
    seen and what to do about it.
  - The backend V(iommu) stands for a working hardware IOMMU, and is the only safe one. V(builtin) is VFIO's own
    no-IOMMU mode, where the kernel was built with it. V(dkms) is the kernel module of this collection.
  - Where the firmware describes an IOMMU that is off, a warning says how to turn it on. That is better than any
    insecure mode. With O(enable_iommu), the verdict is on the host as it is after that.
  - Reads files only. Starts no process and changes nothing.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.info
  - baremetal.noiommu._selectors
options:
  devices:
    description:
      - The devices for the data plane, each entry by exactly one selector, which may mean several.
      - Without it, all network, storage and accelerator devices are listed with their guards, and the verdict is on the
        host alone.
    type: list
    elements: dict
    default: []
  sriov:
    description:
      - How many virtual functions each physical one will have, so that devices which do not exist yet can be judged.
    type: list
    elements: dict
    default: []
  backend:
    description:
      - The backend to judge. V(auto) takes the best one that the host has.
    type: str
    choices: [auto, iommu, builtin, dkms]
    default: auto
  accept_unsafe:
    description:
      - Whether insecure passthrough is accepted on this host.
    type: bool
    default: false
  enable_iommu:
    description:
      - Whether to turn on an IOMMU that the firmware describes and that is off, and to refuse insecure mode.
      - This module only says what that takes, in RV(iommu_boot). It has no effect on a host without such an IOMMU.
    type: bool
    default: false
  kmod_build:
    description:
      - Where the kernel module of the backend V(dkms) is built. V(prebuilt) needs no packages on this host.
    type: str
    choices: [on_host, prebuilt]
    default: on_host
  insecure_until:
    description:
      - The last day on which insecure passthrough is accepted, as V(YYYY-MM-DD). The day ends at midnight UTC.
      - After it the verdict is a refusal, V(insecure_expired), on a host that only an insecure backend can serve.
      - Without a date there is no end.
    type: str
  undeclared:
    description:
      - What the inventory says nothing of, as its variable is not defined or empty.
      - Where an earlier run recorded something of that on this host, the verdict is a refusal, V(undeclared), since a
        deploy would give all of it back.
    type: list
    elements: str
    choices: [devices, sriov, hugepages, hugepage_mounts, access]
    default: []
  hugepages:
    description:
      - The declared pools, as O(baremetal.noiommu.hugepages#module:pools).
      - What that module would refuse is then part of the verdict.
    type: list
    elements: dict
  hugepage_mounts:
    description:
      - The declared mounts, as O(baremetal.noiommu.hugepages#module:mounts).
      - What that module would refuse is then part of the verdict. The group of O(access) may still be missing.
    type: list
    elements: dict
  access:
    description:
      - The declared grants, a dictionary with those options of M(baremetal.noiommu.dataplane_access) that
        C(noiommu_access) may have.
      - What that module would refuse is then part of the verdict.
    type: dict
  host_memory:
    description:
      - How much memory the pools have to leave to the host, as O(baremetal.noiommu.hugepages#module:host_memory).
    type: str
  dpdk_pa_hint:
    description:
      - As O(baremetal.noiommu.vfio_binding#module:dpdk_pa_hint). A device that a process holds is refused if it has
        to be bound anew for another value. Without it, whatever is there is right.
    type: bool
  gather_subset:
    description:
      - Which of the returned values are gathered. The verdict always is.
      - What is not gathered costs nothing on the host, and no memory on the control node.
    type: list
    elements: str
    choices: [all, kernel, iommu, iommu_boot, secure_boot, module_signing, lockdown, module, vfio, taint, insecure,
              devices, hugepages, recorded, os, packages_missing, prebuilt_kernels, applications, container]
    default: [all]
seealso:
  - module: baremetal.noiommu.kernel_cmdline
  - module: baremetal.noiommu.vfio_binding
  - module: baremetal.noiommu.kernel_taint_info
"""

EXAMPLES = r"""
- name: Would these devices be served, and how?
  baremetal.noiommu.noiommu_info:
    devices:
      - mac: 52:54:00:12:34:56
      - address: 0000:04:00.0
    accept_unsafe: true
  register: host

- name: Stop where something speaks against it
  ansible.builtin.assert:
    that: host.verdict.ok
    fail_msg: "{{ host.verdict.refusals | map(attribute='message') | join(' ') }}"
"""

RETURN = r"""
verdict:
  description: The one answer.
  returned: success
  type: dict
  contains:
    backend:
      description: V(iommu), V(builtin), V(dkms), or V(none) if no backend can or may serve the host.
      type: str
    safe:
      description: Whether a hardware IOMMU confines the devices.
      type: bool
    ok:
      description: Whether nothing speaks against it.
      type: bool
    refusals:
      description: Everything that speaks against it.
      type: list
      elements: dict
      contains:
        code:
          description:
            - The kind of reason, as V(unsafe_not_accepted), V(backend_unavailable), V(iommu_active), V(lockdown),
              V(selector), V(sriov), V(guarded_device), V(group_not_viable), V(iommu_wanted), V(iommu_lost),
              V(iommu_stays_off), V(vfio_missing), V(key_not_enrolled), V(key_pending), V(insecure_expired),
              V(undeclared), V(unreadable), V(kernel_driver_needed), V(denylisted), V(vfio_ids), or that with which a
              later step would be refused.
          type: str
        message: &message
          description: The reason.
          type: str
        evidence: &evidence
          description: What was seen on the host.
          type: list
          elements: str
        remedy: &remedy
          description: What to do about it.
          type: str
    module_required:
      description: Whether a deploy installs the kernel module C(noiommu), as the backend or for write combining alone.
      type: bool
    warnings:
      description: What deserves attention although it stops nothing.
      type: list
      elements: str
    reboot_required:
      description:
        - Whether nothing can be done before a reboot, since the running kernel's modules are gone, or since the IOMMU
          is turned on by it.
      type: bool
kernel:
  description: The running and the installed kernels.
  returned: when gathered
  type: dict
  contains:
    release:
      description: The running kernel's release.
      type: str
    config_vfio_noiommu:
      description: Whether it was built with VFIO's own no-IOMMU mode, as V(y), V(n) or V(unknown).
      type: str
    installed:
      description: Every kernel that can be booted, oldest first.
      type: list
      elements: dict
      contains:
        release:
          description: Its release.
          type: str
        running:
          description: Whether it is running.
          type: bool
        headers:
          description: Whether its headers are installed.
          type: bool
        module_installed:
          description: Whether the module C(noiommu) is installed for it.
          type: bool
iommu:
  description: The hardware IOMMU.
  returned: when gathered
  type: dict
  contains:
    state:
      description: V(active), V(firmware_off) if the firmware describes one that is off, or V(absent).
      type: str
    drivers:
      description: Its nodes in sysfs.
      type: list
      elements: str
    firmware_tables:
      description: The ACPI tables that describe one.
      type: list
      elements: str
    enable_with:
      description: What turns it on, where it is off.
      type: str
    disabled_by:
      description: Boot parameters that keep it off.
      type: list
      elements: str
iommu_boot:
  description: What O(enable_iommu) takes.
  returned: when gathered
  type: dict
  contains:
    parameters:
      description: What has to be on the kernel command line.
      type: list
      elements: str
    without:
      description: What has to be off it.
      type: list
      elements: str
    recorded:
      description: Whether this collection has changed the command line for it.
      type: bool
    pending:
      description: Whether the IOMMU is off now and on after a reboot with these.
      type: bool
secure_boot:
  description: Whether Secure Boot is on; V(null) if the firmware does not say.
  returned: when gathered
  type: bool
module_signing:
  description: Whether the running kernel loads signed modules only, and whether it trusts the key that DKMS signs with.
  returned: when gathered
  type: dict
  contains:
    enforced:
      description: Whether an unsigned module is refused.
      type: bool
    enforced_by:
      description: What shows it.
      type: list
      elements: str
    key:
      description: DKMS's private key; V(null) if there is none yet, or with O(kmod_build=prebuilt).
      type: str
    certificate:
      description: DKMS's certificate; V(null) if there is none yet, or with O(kmod_build=prebuilt).
      type: str
    enrolled:
      description:
        - V(yes) if the running kernel trusts it, V(pending) if the firmware waits for the confirmation at the next
          boot, V(no), or V(unknown) with O(kmod_build=prebuilt), where the archive tells.
      type: str
    enrol_with:
      description: What is left to do for that, step by step.
      type: list
      elements: str
  sample:
    enforced: true
    enforced_by: ["/sys/kernel/security/lockdown: none [integrity] confidentiality"]
    key: /var/lib/dkms/mok.key
    certificate: /var/lib/dkms/mok.pub
    enrolled: "no"
    enrol_with:
      - mokutil --import /var/lib/dkms/mok.pub (it asks for a password of your choice)
      - reboot, and at the console choose `Enroll MOK` in MokManager and enter that password
lockdown:
  description: The kernel's lockdown mode; V(null) if it has none.
  returned: when gathered
  type: str
  sample: none
module:
  description: The kernel module C(noiommu).
  returned: when gathered
  type: dict
  contains:
    loaded:
      description: Whether it is loaded.
      type: bool
    version:
      description: The loaded version.
      type: str
    parameters:
      description: Its parameters.
      type: dict
vfio:
  description: The parameters of each VFIO module; V(null) for one that is not loaded.
  returned: when gathered
  type: dict
taint:
  description: What M(baremetal.noiommu.kernel_taint_info) returns.
  returned: when gathered
  type: dict
insecure:
  description: Insecure passthrough on this host over time.
  returned: when gathered
  type: dict
  contains:
    active:
      description: Whether there are groups with devices that no IOMMU confines.
      type: bool
    since:
      description: Since when (UTC); V(null) if that is not known, or there are none.
      type: str
      sample: "2026-01-31T12:00:00Z"
    since_from:
      description:
        - V(record) if M(baremetal.noiommu.vfio_binding) wrote it down, V(log) if it is the kernel log's first trace of
          it in this boot.
      type: str
    until:
      description: The declared O(insecure_until).
      type: str
    expired:
      description: Whether that day is over.
      type: bool
    used_since_boot:
      description: The same as C(insecure_passthrough) in RV(taint).
      type: bool
devices:
  description: The selected devices, or all that a data plane might drive.
  returned: when gathered
  type: list
  elements: dict
  contains:
    address:
      description: The PCI address.
      type: str
    selected:
      description: Whether O(devices) selected it.
      type: bool
    vendor_device:
      description: Vendor and device number.
      type: str
    class:
      description: V(network), V(storage), V(accelerator) or V(other).
      type: str
    class_code:
      description: The class in hexadecimal.
      type: str
    driver:
      description: The bound driver.
      type: str
    interfaces:
      description: Its network interfaces.
      type: list
      elements: str
    mac:
      description: The MAC address of its first interface; the recorded one once the device was taken.
      type: str
    numa_node:
      description: Its NUMA node.
      type: int
    group:
      description: Its IOMMU group.
      type: int
    chardev:
      description: The group's device node.
      type: str
    safety:
      description: V(isolated), V(unsafe) or V(none).
      type: str
    safety_reason:
      description: Why.
      type: str
    write_combining:
      description: Its BARs that are write-combined.
      type: list
      elements: int
    guards:
      description: Every reason for not taking the device.
      type: list
      elements: dict
      contains:
        kind:
          description: The kind of reason.
          type: str
        message: *message
        evidence: *evidence
        remedy: *remedy
hugepages:
  description: Every hugetlb pool; the host's total of each size, then each node's.
  returned: when gathered
  type: list
  elements: dict
  contains:
    size:
      description: The page size.
      type: str
    size_bytes:
      description: The page size in bytes.
      type: int
    node:
      description: The NUMA node, V(null) for the host's total.
      type: int
    count:
      description: Pages in the pool.
      type: int
    free:
      description: Free pages.
      type: int
    in_use:
      description: Pages that are mapped or reserved.
      type: int
recorded:
  description: What this collection has changed on the host and can roll back, besides devices.
  returned: when gathered
  type: dict
  contains:
    hugepages:
      description: Whether it keeps pools.
      type: bool
    hugepage_mounts:
      description: Whether it keeps mounts of hugetlbfs.
      type: bool
    access:
      description: Whether it keeps grants.
      type: bool
os:
  description: The distribution.
  returned: when gathered
  type: dict
  contains:
    id:
      description: Its name in C(/etc/os-release).
      type: str
    version_id:
      description: Its version there.
      type: str
    family:
      description: V(debian), V(redhat) or V(unknown).
      type: str
prebuilt_kernels:
  description: With O(kmod_build=prebuilt) the kernels that want a module from a build host, else empty.
  returned: when gathered
  type: list
  elements: str
applications:
  description:
    - What each application would choose for the selected devices if it were started by default, without any option,
      and whether it works. Where it does not, C(remedy) says what to give it.
    - On a host that was deployed, O(accept_unsafe) is not needed for this, and neither is O(devices).
    - With the backend V(dkms), DPDK on x86 finds the hint (C(dpdk_pa_hint)) at the first PCI device of the host and
      chooses physical addresses. Where there is no hint, it chooses virtual ones and ends with
      C(Cannot set up DMA remapping, error 22). The option C(--iova-mode=pa) works either way.
    - The keys are V(dpdk), V(spdk), V(ovs), V(vpp_dpdk) for VPP with its DPDK plugin, and V(vpp_native) for VPP's own
      drivers.
  returned: when gathered
  type: dict
  contains:
    backend:
      description: The backend that it meets, V(none) if the host has none for it.
      type: str
    iova_mode:
      description: V(VA) or V(PA), whether it gives devices virtual or physical addresses.
      type: str
    container_type:
      description: V(type1), or V(noiommu) for VFIO's container of type 8.
      type: str
    works:
      description: Whether it works without any option.
      type: bool
    reasons:
      description: What it looks at, and what follows from that.
      type: list
      elements: str
    remedy:
      description: What makes it work, or work with less, where there is something.
      type: str
    capabilities:
      description: What it needs if it runs as a service without being root.
      type: list
      elements: str
  sample:
    dpdk:
      backend: dkms
      iova_mode: PA
      container_type: type1
      works: true
      reasons:
        - >-
          iommu/intel-iommu/cap of the host's first PCI device is no number (dpdk_pa_hint): DPDK on x86 then takes
          physical addresses
        - "with physical addresses it reads /proc/self/pagemap: as root, or with CAP_SYS_ADMIN"
      remedy: null
      capabilities: [CAP_SYS_RAWIO, CAP_SYS_ADMIN]
container:
  description: What a container needs to drive the selected devices with DPDK as its root user.
  returned: when gathered
  type: dict
  contains:
    devices:
      description: Device nodes. The numbers of groups can change with a reboot.
      type: list
      elements: str
      sample: [/dev/vfio/vfio, /dev/vfio/0]
    capabilities:
      description: Capabilities, without C(CAP_).
      type: list
      elements: str
      sample: [SYS_RAWIO, SYS_ADMIN]
    mounts:
      description: Directories to mount at the same place.
      type: list
      elements: str
    memlock:
      description: The limit on locked memory.
      type: str
    user_namespace:
      description:
        - Whether the container may have a user namespace of its own, as rootless ones do.
        - Not where capabilities are needed. The kernel asks for them in the host's namespace.
      type: bool
    arguments:
      description: All of it as arguments of C(docker run) and C(podman run).
      type: list
      elements: str
    reasons:
      description: Why each capability is needed, or why none is.
      type: list
      elements: str
packages_missing:
  description:
    - Packages that the backend V(dkms) needs for building and that are not there.
    - Where a package brings newer kernels, the one that brings their headers is among them.
  returned: when gathered
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.baremetal.noiommu.plugins.module_utils._answer import answer
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.selectors import ELEMENT_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.sriov import ELEMENT_SPEC as SRIOV_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.undeclared import KINDS
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import (
    ALL,
    PARTS,
    Declaration,
    Preflight,
)

ARGUMENTS = {
    "devices": {**ELEMENT_SPEC, "default": []},
    "sriov": {**SRIOV_SPEC, "default": []},
    "backend": {"type": "str", "choices": ["auto", "iommu", "builtin", "dkms"], "default": "auto"},
    "accept_unsafe": {"type": "bool", "default": False},
    "enable_iommu": {"type": "bool", "default": False},
    "kmod_build": {"type": "str", "choices": ["on_host", "prebuilt"], "default": "on_host"},
    "insecure_until": {"type": "str"},
    "undeclared": {"type": "list", "elements": "str", "choices": list(KINDS), "default": []},
    "hugepages": {"type": "list", "elements": "dict"},
    "hugepage_mounts": {"type": "list", "elements": "dict"},
    "access": {"type": "dict"},
    "host_memory": {"type": "str"},
    "dpdk_pa_hint": {"type": "bool"},
    "gather_subset": {"type": "list", "elements": "str", "choices": [ALL, *PARTS], "default": [ALL]},
}


# What the modules of later steps take.
LATER_PARTS = ("hugepages", "hugepage_mounts", "access")


def declared(params: dict[str, Any]) -> Declaration:
    """Return the declaration, its parts converted as the modules that take them later will do."""
    given = {name: params[name] for name in LATER_PARTS if params[name]}
    return Declaration(**{**params, **(_converted(given) if given else {})})


def _converted(given: dict[str, Any]) -> dict[str, Any]:
    # Imported where something is declared: who only asks for a report declares nothing.
    from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import GRANTS_SPEC
    from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import MOUNTS_SPEC, POOLS_SPEC

    specs = {
        "hugepages": POOLS_SPEC,
        "hugepage_mounts": MOUNTS_SPEC,
        "access": {"type": "dict", "options": GRANTS_SPEC},
    }
    result = ArgumentSpecValidator({name: specs[name] for name in given}).validate(given)
    if result.error_messages:
        raise HostError("declaration", "What is declared is not usable.", result.error_messages, "Correct it.")
    return dict(result.validated_parameters)


def noiommu_info(module: AnsibleModule, root: Root) -> dict[str, Any]:
    """Return the verdict and what was asked for of what it rests on."""
    subset = module.params.pop("gather_subset")
    context = GuardContext(root, ssh_connection=os.environ.get("SSH_CONNECTION"))
    return {"changed": False, **Preflight(root, context, declared(module.params)).report(subset)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    answer(module, lambda root: noiommu_info(module, root))


if __name__ == "__main__":
    main()
