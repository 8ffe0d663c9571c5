#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a kernel module built and installed through DKMS."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dkms_module
short_description: Keeps a kernel module built and installed through DKMS
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Takes a kernel module's source from the controller, and builds and installs it by DKMS for the installed kernels.
    DKMS then builds it for later kernels by itself.
  - A digest of the source is compared first. The source is only sent where the host has another one or none.
  - What is missing for a build (DKMS, headers, compiler, space, a writable C(/lib/modules)) is reported before anything
    changes. Everything is built beside the DKMS tree and then swapped in. If a build or an installation fails, the host
    stays as it was, an older version of the module included, and the error names the cause from the build log.
  - Other versions of the same module are removed once the new one is in place.
  - The module is not loaded. See M(baremetal.noiommu.vfio_binding).
  - A converged host is only read.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.state
attributes:
  check_mode:
    details:
      - Packages that are missing for a build are a warning and not an error, since an earlier task may have been going
        to install them.
      - That C(dkms.conf) excludes a kernel that is not running is only found out by the build.
  action:
    description:
      - Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
options:
  source:
    description:
      - The directory on the controller that holds the source with its C(dkms.conf). Required with O(state=present).
      - Only source files are sent. Build products, hidden files and a directory C(tests) are left out.
    type: path
  name:
    description:
      - The name of the DKMS package. Taken from C(dkms.conf) in O(source) unless given.
    type: str
  version:
    description:
      - The version of the DKMS package. Taken from C(dkms.conf) in O(source) unless given.
    type: str
  kernels:
    description:
      - The kernels to build for, by their releases, or V(running), or V(all) for every installed one.
      - Without it, the running kernel and every other installed kernel that has headers. Those without headers, and
        those that C(dkms.conf) excludes, are named in a warning.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) keeps it installed. V(absent) unloads it, and removes all its versions from DKMS, from the kernels
        and from C(/usr/src). That fails while the module is in use.
    type: str
    choices: [present, absent]
    default: present
  digest:
    description:
      - The digest of the source. Set by the action plugin.
    type: str
  archive:
    description:
      - The path of the source archive on the host. Set by the action plugin.
    type: path
notes:
  - DKMS makes a key for signing modules (C(/var/lib/dkms/mok.key), C(/var/lib/dkms/mok.pub)) at the first build.
    O(state=absent) removes it only if that was a build of this module's, no other module is in DKMS, and the firmware
    has the key neither enrolled nor pending.
seealso:
  - module: baremetal.noiommu.vfio_binding
"""

EXAMPLES = r"""
- name: Keep the noiommu module of this collection installed
  baremetal.noiommu.dkms_module:
    source: "{{ kmod_source }}"

- name: For the running kernel alone
  baremetal.noiommu.dkms_module:
    source: files/kmod
    kernels: [running]

- name: Remove it
  baremetal.noiommu.dkms_module:
    name: noiommu
    state: absent
"""

RETURN = r"""
name:
  description: The name of the DKMS package.
  returned: success
  type: str
version:
  description: The version of the DKMS package.
  returned: success, with O(state=present)
  type: str
before:
  description:
    - For each kernel how far the module had come, as V(absent), V(added), V(built), V(installed), or V(differs) if
      something else of that name is installed.
  returned: success
  type: dict
  sample: {"6.1.0-56-amd64": "absent"}
after:
  description: The same after the run.
  returned: success
  type: dict
  sample: {"6.1.0-56-amd64": "installed"}
replaced:
  description: Other versions that were or would be removed.
  returned: success, with O(state=present)
  type: list
  elements: str
source_sent:
  description: Whether the source was or would be sent to the host.
  returned: success, with O(state=present)
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms import FAILED, AbsentPlan, PresentPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms_apply import Installer, remove_all
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms_checks import lacking
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms_source import Source, unpack
from ansible_collections.baremetal.noiommu.plugins.module_utils._errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._fs import Root, Runner

ARGUMENTS = {
    "source": {"type": "path"},
    "name": {"type": "str"},
    "version": {"type": "str"},
    "kernels": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "digest": {"type": "str"},
    "archive": {"type": "path"},
}


def present(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Have the version installed."""
    params = module.params
    plan = PresentPlan(root, params["name"], params["version"], params["digest"], params["kernels"])
    result = {
        "changed": plan.changed,
        "name": params["name"],
        "version": params["version"],
        "before": plan.before,
        "after": plan.after,
        "replaced": plan.others,
        "source_needed": plan.source_needed,
        "failed_kernels": plan.failures(),
        "diff": plan.diff(),
    }
    warnings = list(plan.warnings)
    if plan.changed and module.check_mode:
        problem = lacking(root, plan.build)
        if problem is not None:
            warnings.append("Predicted as if this were mended before: %s" % problem)
    elif plan.changed:
        installer = Installer(root, runner, plan)
        installer.check()
        sent = _read_archive(params["archive"])
        if plan.source_needed and sent is None:
            return result  # The action plugin sends it and calls again.
        installer.run(sent)
        result["changed"] = installer.changed
        result["after"] = {
            kernel: FAILED if kernel in installer.failed else state
            for kernel, state in plan.after.items()
            if kernel not in installer.skipped
        }
        result["failed_kernels"] = {**plan.failed, **installer.failed}
        warnings += ["No module for the installed kernel %s: %s" % item for item in installer.skipped.items()]
    warnings += [
        "No module for the installed kernel %s, the build failed: %s. Do not boot it before that is mended."
        % (kernel, "; ".join(why))
        for kernel, why in result["failed_kernels"].items()
    ]
    for warning in warnings:
        module.warn(warning)
    return result


def _read_archive(path: str | None) -> Source | None:
    if path is None:
        return None
    if not os.path.isfile(path):
        raise HostError(
            "archive",
            "The source archive did not arrive.",
            evidence=["%s: no such file" % path],
            remedy="Run again; see that the remote temporary directory has space.",
        )
    with open(path, "rb") as stream:
        return unpack(stream.read())


def absent(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Have nothing of it left."""
    plan = AbsentPlan(root, module.params["name"])
    result = {
        "changed": plan.changed,
        "name": module.params["name"],
        "before": plan.before,
        "after": plan.after,
        "diff": plan.diff(),
    }
    if plan.changed and module.check_mode:
        try:
            plan.refuse_if_used()
        except HostError as exc:
            module.warn("Predicted as if this were mended before: %s" % exc)
    elif plan.changed:
        remove_all(root, runner, plan)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("name", "version", "digest")), ("state", "absent", ("name",))],
        supports_check_mode=True,
    )
    try:
        result = (present if module.params["state"] == "present" else absent)(module, Root(), Runner())
    except HostError as exc:
        module.fail_json(msg=str(exc), refusals=[exc.as_dict()])
    if not module._diff or not result["changed"]:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
