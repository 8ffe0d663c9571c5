# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is not declared reaches the modules as that, and what is declared to be nothing as nothing.

The roles are the real ones. Each module is one that writes down what it was asked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.undeclared import KINDS
from ansible_collections.baremetal.noiommu.tests.unit.support.control_node import COLLECTION, Control, play

VARIABLES = ("noiommu_devices", "noiommu_sriov", "noiommu_hugepages", "noiommu_hugepage_mounts", "noiommu_access")
DECLARED = {
    "noiommu_devices": [{"address": "0000:00:10.0"}],
    "noiommu_sriov": [{"pf": "eth0", "vfs": 2}],
    "noiommu_hugepages": [{"size": "2M", "count": 8}],
    "noiommu_hugepage_mounts": [{"path": "/srv/huge", "size": "2M"}],
    "noiommu_access": {"group": "dataplane"},
}
ANSWER = {
    "verdict": {"backend": "iommu", "module_required": False, "refusals": [], "warnings": []},
    "iommu_boot": {"recorded": False, "pending": False},
    "recorded": dict.fromkeys(("hugepages", "hugepage_mounts", "access"), False),
    "packages_missing": [],
    "prebuilt_kernels": [],
}
STUB = """#!/usr/bin/python
import json
import os

from ansible.module_utils.basic import AnsibleModule

OPTIONS = %r
module = AnsibleModule({name: {"type": "raw"} for name in OPTIONS}, supports_check_mode=True)
with open(os.environ["ASKED"], "a") as stream:
    stream.write(json.dumps([%r, {name: value for name, value in module.params.items() if value is not None}]) + "\\n")
module.exit_json(**json.loads(%r))
"""
OPTIONS = {
    "noiommu_info": [
        "devices",
        "sriov",
        "backend",
        "accept_unsafe",
        "dpdk_pa_hint",
        "enable_iommu",
        "kmod_build",
        "insecure_until",
        "hugepages",
        "hugepage_mounts",
        "access",
        "undeclared",
        "gather_subset",
    ],
    "vfio_binding": ["devices", "sriov", "backend", "accept_unsafe", "dpdk_pa_hint", "insecure_until", "state"],
    "hugepages": ["pools", "mounts", "groups_to_come", "state"],
    "dataplane_access": [
        "group",
        "gid",
        "users",
        "memlock",
        "hugetlbfs",
        "services",
        "binaries",
        "profile",
        "capabilities",
        "backend",
        "accept_unsafe",
        "state",
    ],
}


NOTHING = {**{name: [] for name in VARIABLES}, "noiommu_access": {}}
HOSTS: dict[str, dict[str, Any]] = {
    "undefined": {},
    # In YAML, in an inventory in INI or with -e, and by a template.
    "empty": dict(zip(VARIABLES, (None, "", "{{ nowhere | default(none) }}", None, ""))),
    "nothing": NOTHING,
    "declared": DECLARED,
    # By variables that add up, one of which is left empty.
    "parts": {
        **{name + "_b": value for name, value in DECLARED.items()},
        "noiommu_devices": None,
        "noiommu_devices_a": [{"address": "0000:00:11.0"}],
        "noiommu_hugepages_a": [{"size": "2M", "count": 4}],
        "noiommu_access_a": {"users": ["{{ name_of_user }}"]},
        "name_of_user": "ann",
    },
    # By the roles' own variables.
    "own": {
        "preflight_devices": DECLARED["noiommu_devices"],
        "preflight_sriov": DECLARED["noiommu_sriov"],
        "devices_bindings": DECLARED["noiommu_devices"],
        "devices_sriov": DECLARED["noiommu_sriov"],
        "hugepages_pools": DECLARED["noiommu_hugepages"],
        "hugepages_mounts": DECLARED["noiommu_hugepage_mounts"],
        "access_grants": DECLARED["noiommu_access"],
    },
}
# These get single roles.
ALONE: dict[str, dict[str, Any]] = {"alone_undefined": {}, "alone_nothing": NOTHING}
# Each of these gets one role, which needs a verdict.
SINGLE = {"devices": DECLARED, "kmod": DECLARED, "absent": {**DECLARED, "noiommu_state": "absent"}}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Any]]]:
    """With which arguments each host's modules were called; one run for all, since runs are slow."""
    path = tmp_path_factory.mktemp("control")
    calls = path / "asked"
    calls.mkdir()
    control = Control(path, stubbed_collection(path / "collections"))
    keywords = {"environment": {"ASKED": "%s/{{ inventory_hostname }}" % calls}}
    plays = [
        play(":".join(HOSTS), roles=["baremetal.noiommu.passthrough"], **keywords),
        play(":".join(ALONE), roles=["baremetal.noiommu.hugepages", "baremetal.noiommu.access"], **keywords),
        play("devices:absent", roles=["baremetal.noiommu.devices"], **keywords),
        play("kmod", roles=["baremetal.noiommu.kmod"], **keywords),
    ]
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    done = control.run(plays, {**HOSTS, **ALONE, **SINGLE}, **here)
    assert done.rc == 0, done.said
    return {
        host: dict(map(json.loads, (calls / host).read_text().splitlines())) if (calls / host).exists() else {}
        for host in (*HOSTS, *ALONE, *SINGLE)
    }


def stubbed_collection(parent: Path) -> Path:
    """Make the collection with these modules in the place of its own."""
    stubbed = parent / "ansible_collections/baremetal/noiommu"
    (stubbed / "plugins/modules").mkdir(parents=True)
    plugins = ("action", "lookup", "module_utils", "plugin_utils", "modules/declaration.py")
    for part in ("galaxy.yml", "meta", "roles", "kmod", *("plugins/" + plugin for plugin in plugins)):
        (stubbed / part).symlink_to(COLLECTION / part)
    for name, options in OPTIONS.items():
        answer = ANSWER if name == "noiommu_info" else {}
        (stubbed / "plugins/modules" / (name + ".py")).write_text(STUB % (options, name, json.dumps(answer)))
    return parent


@pytest.mark.parametrize("host", ["undefined", "empty"])
def test_what_nobody_declares_is_judged_and_not_given_back(asked: dict[str, Any], host: str) -> None:
    info, binding = asked[host]["noiommu_info"], asked[host]["vfio_binding"]
    assert info["undeclared"] == list(KINDS) and info["devices"] == [] == info["sriov"]
    assert not {"devices", "sriov"} & set(binding)
    assert not {"hugepages", "dataplane_access"} & set(asked[host])


def test_an_explicit_nothing_gives_back(asked: dict[str, Any]) -> None:
    info, binding = asked["nothing"]["noiommu_info"], asked["nothing"]["vfio_binding"]
    assert info["undeclared"] == [] and binding["devices"] == [] == binding["sriov"]
    assert asked["nothing"]["dataplane_access"]["state"] == "absent"


@pytest.mark.parametrize("host", ["declared", "own"])
def test_a_declaration_arrives_whole(asked: dict[str, Any], host: str) -> None:
    info, binding = asked[host]["noiommu_info"], asked[host]["vfio_binding"]
    assert info["undeclared"] == [] and info["devices"] == DECLARED["noiommu_devices"] == binding["devices"]
    assert binding["sriov"] == DECLARED["noiommu_sriov"]
    assert asked[host]["dataplane_access"]["group"] == "dataplane"
    assert asked[host]["dataplane_access"]["state"] == "present"


def test_what_groups_declare_arrives_together(asked: dict[str, Any]) -> None:
    info, binding, access = (asked["parts"][name] for name in ("noiommu_info", "vfio_binding", "dataplane_access"))
    assert info["undeclared"] == [] and info["hugepages"] == [{"size": "2M", "count": 12}]
    assert [entry["address"] for entry in info["devices"]] == ["0000:00:11.0", "0000:00:10.0"]
    assert binding["devices"] == info["devices"] and binding["sriov"] == DECLARED["noiommu_sriov"]
    assert access["group"] == "dataplane" and access["users"] == ["ann"] == info["access"]["users"]


def test_roles_that_work_alone_do_nothing_unless_told(asked: dict[str, Any]) -> None:
    assert asked["alone_undefined"] == {}
    assert asked["alone_nothing"]["dataplane_access"]["state"] == "absent"
    assert asked["alone_nothing"]["hugepages"]["mounts"] == [], "what the host has of them goes back"


def test_roles_that_need_a_verdict_get_it_themselves(asked: dict[str, Any]) -> None:
    assert list(asked["devices"]) == ["noiommu_info", "vfio_binding"]
    assert asked["devices"]["vfio_binding"]["backend"] == "iommu"
    assert list(asked["kmod"]) == ["noiommu_info"], "the backend iommu needs no module"
    assert asked["absent"]["vfio_binding"]["state"] == "absent" and "noiommu_info" not in asked["absent"]
