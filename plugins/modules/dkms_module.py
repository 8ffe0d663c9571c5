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
  - A failing build for another kernel than the running one is reported in RV(failed_kernels) and as a warning, and does
    not fail the task, unless O(kernels) names that kernel. It is tried again once source, headers or compiler changed.
  - Where the running kernel loads signed modules only, it has to trust the key that DKMS signs with. If it does not,
    nothing is changed and the error says how to enrol the key.
  - A fleet without compilers takes modules that were built once for each kernel release. See O(build) and
    O(state=archived).
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
      - That C(dkms.conf) excludes a kernel that is not running, or that a build fails, is only found out by the build.
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
      - With O(build=prebuilt), the running kernel and every other installed one. Headers do not matter.
      - With O(state=archived), the kernel releases to build for, installed or not; their headers have to be.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) keeps it installed. V(absent) unloads it, and removes all its versions from DKMS, from the kernels
        and from C(/usr/src). That fails while the module is in use.
      - V(archived) builds it for O(kernels) and keeps the result on the controller, in O(archives), one archive for
        each kernel. Of the module nothing is installed; compiler, DKMS and headers are, where they are missing. What is
        there already is not built again, and the host is not even asked.
    type: str
    choices: [present, absent, archived]
    default: present
  build:
    description:
      - V(on_host) builds by DKMS on the host itself.
      - V(prebuilt) takes the module from an archive in O(archives). The host needs no compiler, no headers, and no
        DKMS, whose package depends on a compiler; what DKMS has of this module there is removed.
      - A running kernel without an archive is an error, another one without is reported in RV(failed_kernels).
    type: str
    choices: [on_host, prebuilt]
    default: on_host
  archives:
    description:
      - The directory on the controller with the archives, each beside its checksum in a file with the suffix
        C(.sha256).
      - They are binary archives of DKMS, which C(dkms ldtarball) takes as well.
    type: path
  archive_keyring:
    description:
      - A keyring on the controller. If given, an archive is used only if C(gpgv) finds it signed by a key of this
        keyring, with the detached signature in the file with the suffix C(.sig) or C(.asc) beside it.
    type: path
  builds:
    description:
      - The results of tasks with O(state=archived) before this one. Check mode counts on the archives that they would
        make, and why they could not make one is said where an archive is missing.
    type: list
    elements: dict
    default: []
  digest:
    description:
      - The digest of the source. Set by the action plugin.
    type: str
  archive:
    description:
      - The path of the source archive on the host. Set by the action plugin.
    type: path
  available:
    description:
      - The checksum of each kernel's archive. Set by the action plugin.
    type: dict
    default: {}
  unbuilt:
    description:
      - Why there is no archive, for each kernel. Set by the action plugin.
    type: dict
    default: {}
  archive_files:
    description:
      - The path of each kernel's archive on the host. Set by the action plugin.
    type: dict
    default: {}
  destination:
    description:
      - The directory on the host for new archives. Set by the action plugin.
    type: path
  announced:
    description:
      - Whether it was said that a build begins. Set by the action plugin.
    type: bool
    default: false
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

- name: Build it once for every kernel of a fleet
  baremetal.noiommu.dkms_module:
    source: files/kmod
    state: archived
    kernels: [6.1.0-56-amd64, 6.12.57+deb13-amd64]
    archives: ~/noiommu-archives
  delegate_to: builder.example.com

- name: Have it on hosts that have no compiler
  baremetal.noiommu.dkms_module:
    source: files/kmod
    build: prebuilt
    archives: ~/noiommu-archives

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
      something else of that name is installed, or V(failed) if the build for it is known to fail.
  returned: success, except with O(state=archived)
  type: dict
  sample: {"6.1.0-56-amd64": "absent"}
after:
  description: The same after the run.
  returned: success, except with O(state=archived)
  type: dict
  sample: {"6.1.0-56-amd64": "installed"}
replaced:
  description: Other versions that were or would be removed.
  returned: success, with O(state=present)
  type: list
  elements: str
failed_kernels:
  description:
    - The kernels that are left without the module because a build failed or an archive is missing, with the cause. In
      check mode also those for which DKMS itself failed, as at a kernel upgrade.
  returned: success, with O(state=present) or O(state=archived)
  type: dict
  sample: {"6.12.9-amd64": ["noiommu.c:812:9: error: too few arguments to function"]}
archived:
  description: The paths on the controller of the archives that were or would be made, by kernel.
  returned: success, with O(state=archived)
  type: dict
  sample: {"6.1.0-56-amd64": "/root/noiommu-archives/noiommu-1.0.0-kernel6.1.0-56-amd64-x86_64-0f3a.dkms.tar.gz"}
packages_missing:
  description: The packages that the host lacked to build.
  returned: success, with O(state=archived)
  type: list
  elements: str
build_seconds:
  description: How long the host took to build and install it.
  returned: success, with O(state=present) and O(build=on_host), if something was built
  type: int
source_sent:
  description: Whether the source was or would be sent to the host.
  returned: success, with O(state=present)
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.lock import BUILD_WAIT
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.archive import remote_name, sha256
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.archive_builder import ArchiveBuilder
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.checks import lacking
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.install import Installer
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.plan import DkmsPlan, PresentPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.prebuilt import PrebuiltInstaller, PrebuiltPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.remove import AbsentPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import Source, unpack
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.kernels import require_release
from ansible_collections.baremetal.noiommu.plugins.module_utils._run import converge, run

ARGUMENTS = {
    "source": {"type": "path"},
    "name": {"type": "str"},
    "version": {"type": "str"},
    "kernels": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "str", "choices": ["present", "absent", "archived"], "default": "present"},
    "build": {"type": "str", "choices": ["on_host", "prebuilt"], "default": "on_host"},
    "archives": {"type": "path"},
    "archive_keyring": {"type": "path"},
    "builds": {"type": "list", "elements": "dict", "default": []},
    "digest": {"type": "str"},
    "archive": {"type": "path"},
    "available": {"type": "dict", "default": {}},
    "unbuilt": {"type": "dict", "default": {}},
    "archive_files": {"type": "dict", "default": {}},
    "destination": {"type": "path"},
    "announced": {"type": "bool", "default": False},
}


def present(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Have the version installed."""
    params = module.params
    if params["build"] == "prebuilt":
        return prebuilt(module, root, runner)
    plan = PresentPlan(root, params["name"], params["version"], params["digest"], params["kernels"])
    sent = None
    if plan.changed and module.check_mode:
        _warn_of_prediction(module, lacking(root, plan.build))
    elif plan.changed:
        Installer(root, runner, plan).check()
        sent = _read_archive(params["archive"])
        if (plan.source_needed and sent is None) or (plan.build and not params["announced"]):
            # The action plugin says that a build begins, sends the source and calls again.
            return {"changed": True, "source_needed": plan.source_needed, "to_build": plan.build}
    return {**_install(module, plan, Installer(root, runner, plan, sent)), "source_needed": plan.source_needed}


def prebuilt(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Have the version installed from archives."""
    params = module.params
    plan = PrebuiltPlan(
        root,
        params["name"],
        params["version"],
        params["digest"],
        params["kernels"],
        params["available"],
        params["unbuilt"],
    )
    packed = {}
    if module.check_mode:
        _warn_of_prediction(module, plan.lacking())
    else:
        PrebuiltInstaller(root, runner, plan).check()
        if set(plan.install) - set(params["archive_files"]):
            # The action plugin sends them and calls again.
            return {"changed": True, "archives_needed": plan.install}
        packed = {kernel: _read(params["archive_files"][kernel]) for kernel in plan.install}
    installer = PrebuiltInstaller(root, runner, plan, packed)
    return {**_install(module, plan, installer), "archives_needed": plan.install}


def _install(module: AnsibleModule, plan: DkmsPlan, installer: Installer | PrebuiltInstaller) -> dict:
    result = converge(module, installer)
    _warn_of_failures(module, installer.failures)
    return _without_empty_diff(
        {
            **result,
            "changed": installer.changed,  # a build that failed changes nothing
            "name": plan.tree.name,
            "version": plan.version,
            "replaced": plan.others,
            "failed_kernels": installer.failures,
        }
    )


def archived(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Build, and leave an archive for each kernel for the action plugin to fetch."""
    params = module.params
    for kernel in params["kernels"]:
        require_release(kernel, "kernels")
    builder = ArchiveBuilder(root, runner, params["name"], params["version"], params["digest"], params["kernels"])
    result = {
        "changed": True,
        "name": params["name"],
        "version": params["version"],
        "packages_missing": builder.packages_missing(),
        "failed_kernels": builder.headless,
        "made": {},
        "source_needed": True,
    }
    if module.check_mode:
        return result
    if params["archive"] is not None:
        builder.check()
        made = builder.archive(_read_archive(params["archive"]) or {})
        for kernel, content in made.items():
            root.write_file(os.path.join(params["destination"], remote_name(kernel)), content)
            result["made"][kernel] = sha256(content)
        result["changed"] = bool(made)
        result["failed_kernels"] = builder.failed
        _warn_of_failures(module, builder.failed)
    return result


def _warn_of_prediction(module: AnsibleModule, problem: HostError | None) -> None:
    if problem is not None:
        module.warn("Predicted as if this were fixed first: %s" % problem)


def _warn_of_failures(module: AnsibleModule, failed: dict) -> None:
    for kernel, why in failed.items():
        module.warn(
            "No module for the kernel %s: %s. Without it, its devices stay unbound: do not boot it before that is"
            " fixed." % (kernel, "; ".join(why))
        )


def _without_empty_diff(result: dict) -> dict:
    if not result["changed"]:
        result.pop("diff", None)
    return result


def _read(path: str) -> bytes:
    if not os.path.isfile(path):
        raise HostError(
            "archive",
            "An archive did not arrive.",
            evidence=["%s: no such file" % path],
            remedy="Run again; see that the remote temporary directory has space.",
        )
    with open(path, "rb") as stream:
        return stream.read()


def _read_archive(path: str | None) -> Source | None:
    return None if path is None else unpack(_read(path))


def absent(module: AnsibleModule, root: Root, runner: Runner) -> dict:
    """Have nothing of it left."""
    plan = AbsentPlan(root, runner, module.params["name"])
    if plan.changed and module.check_mode:
        try:
            plan.refuse_if_used()
        except HostError as exc:
            _warn_of_prediction(module, exc)
    return _without_empty_diff({**converge(module, plan), "name": module.params["name"]})


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[
            ("state", "present", ("name", "version", "digest")),
            ("state", "archived", ("name", "version", "digest", "kernels", "archives")),
            ("state", "absent", ("name",)),
            ("build", "prebuilt", ("archives",)),
        ],
        supports_check_mode=True,
    )
    act = {"present": present, "absent": absent, "archived": archived}[module.params["state"]]
    run(module, lambda root, runner: act(module, root, runner), lock_wait=BUILD_WAIT)


if __name__ == "__main__":
    main()
