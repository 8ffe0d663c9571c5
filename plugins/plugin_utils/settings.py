# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller may act on: the operator's variables, and nothing that a host answered.

Facts are a host's answers, kept by Ansible under the names that the host chose, also from an earlier run. Unless
inject_facts_as_vars is off, they beat the inventory's variables and the roles' defaults.
"""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError

# What an inventory declares begins with this, and these are the variables that the roles and playbooks have besides. By
# name, since other people's facts may well begin with devices_ or access_.
PREFIX = "noiommu_"
INTERNAL = frozenset(
    """
    access_accept_unsafe access_grants access_result access_state compare_facts compare_failure compare_reachable
    devices_accept_unsafe devices_bindings devices_dpdk_pa_hint devices_insecure_until devices_result
    devices_sriov devices_state fleet_report_result host_report_result hugepages_groups_to_come
    hugepages_host_memory hugepages_mounted hugepages_mounts hugepages_pools hugepages_result hugepages_state
    kmod_archive_keyring kmod_archives kmod_build kmod_build_hosts kmod_built kmod_headers_hint
    kmod_package_manager kmod_packages_needed kmod_result kmod_source kmod_state kmod_wanting passthrough_cmdline
    passthrough_declared passthrough_now passthrough_reboot passthrough_reboot_ok passthrough_state passthrough_steps
    preflight_accept_unsafe
    preflight_access preflight_backend preflight_devices preflight_dpdk_pa_hint preflight_enable_iommu
    preflight_gather_subset
    preflight_host_memory preflight_hugepage_mounts preflight_hugepages preflight_info preflight_insecure_until
    preflight_kmod_build preflight_refused preflight_sriov preflight_tolerated preflight_undeclared rollback_taint
""".split()
)
BUILD_HOST = "noiommu_kmod_build_host"


def foreign_facts(variables: Mapping[str, Any]) -> list[str]:
    """Return the names of a host's facts that are names of this collection's variables."""
    names = map(str, variables.get("ansible_facts") or {})
    return sorted(name for name in names if name.startswith(PREFIX) or name in INTERNAL)


def facts_override(variables: Mapping[str, Any]) -> list[HostError]:
    """Refuse a host whose facts would change what its operator declared."""
    names = foreign_facts(variables)
    if not names:
        return []
    return [
        HostError(
            "facts_override",
            "Facts of this host have the names of this collection's variables. Facts are the host's own answers, and"
            " must not decide what the controller does.",
            evidence=["ansible_facts: %s" % ", ".join(names)],
            remedy="Declare these variables in the inventory. Find out which task, file in /etc/ansible/facts.d or"
            " cacheable set_fact made these facts, and whether somebody else controls the host; then clear what is"
            " cached (ansible-playbook --flush-cache).",
        )
    ]


def require_no_override(variables: Mapping[str, Any]) -> None:
    """Raise what :func:`facts_override` returns."""
    for problem in facts_override(variables):
        raise problem


def is_fact(variables: Mapping[str, Any], name: str) -> bool:
    """Whether a variable's value comes from a fact, and not from a place that overrides facts, such as register."""
    facts = variables.get("ansible_facts") or {}
    return name in facts and variables.get(name) == facts[name]


def unknown_build_host(variables: Mapping[str, Any]) -> list[HostError]:
    """Refuse a build host that the inventory does not list: Ansible would make one up, localhost included."""
    name = variables["hostvars"][variables["inventory_hostname"]].get(BUILD_HOST)
    if not name or name in variables["groups"]["all"]:
        return []
    return [
        HostError(
            "build_host_unknown",
            "The build host is not in the inventory.",
            evidence=["%s: %s" % (BUILD_HOST, name)],
            remedy="Correct the name, or add the host to the inventory. The control node builds only where the"
            " inventory lists localhost.",
        )
    ]
