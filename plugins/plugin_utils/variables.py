# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables that an inventory may declare for this collection, and what is said of any other."""

from __future__ import annotations

import difflib
import re
from typing import Any, Mapping

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError

# The one list of them. docs/guide.md explains each; a test compares it with the guide, the roles and the playbooks.
VARIABLES = {
    "noiommu_accept_unsafe": "Insecure passthrough is accepted.",
    "noiommu_access": "Who may use the devices.",
    "noiommu_backend": "Which backend serves the devices.",
    "noiommu_batches": "How many hosts a deploy takes at a time.",
    "noiommu_devices": "The data plane's devices.",
    "noiommu_dpdk_pa_hint": "The devices carry the hint by which DPDK chooses physical addresses.",
    "noiommu_enable_iommu": "An IOMMU that is off is turned on.",
    "noiommu_host_memory": "How much memory the pools leave to the host.",
    "noiommu_hugepage_mounts": "The mounts of hugetlbfs.",
    "noiommu_hugepages": "The pools of hugepages.",
    "noiommu_insecure_until": "The last day on which insecure passthrough is accepted.",
    "noiommu_kmod_archive_keyring": "Whose signatures prebuilt archives need.",
    "noiommu_kmod_archives": "Where the controller keeps prebuilt archives.",
    "noiommu_kmod_build": "Where the kernel module is built.",
    "noiommu_kmod_build_host": "Who builds it for hosts without a compiler.",
    "noiommu_maintenance": "Why the host is in maintenance.",
    "noiommu_max_fail_percentage": "How many hosts of a batch may fail before a deploy stops.",
    "noiommu_metrics_dir": "Where a host keeps its metrics.",
    "noiommu_reboot_ok": "A deploy may reboot the host.",
    "noiommu_report_dir": "Where the report is written.",
    "noiommu_report_prune": "Hosts that are not in the inventory are removed from the report.",
    "noiommu_sriov": "How many virtual functions physical ones have.",
    "noiommu_state": "Whether the host has what is declared, or nothing.",
}

_PREFIX = "noiommu_"
# The prefix itself can be misspelt, as in noiomu_devices, no_iommu_devices and NOIOMMU_DEVICES.
_LIKE_THE_PREFIX = re.compile(r"no_?io?m+u_", re.IGNORECASE)
_ALIKE = 0.85  # how alike names have to be (1: the same) where nothing else says that ours was meant


def unknown_names(variables: Mapping[str, Any]) -> list[HostError]:
    """Refuse each variable that would be ignored although its name says that it is meant for this collection."""
    refusals = []
    for name in sorted(name for name in variables if _LIKE_THE_PREFIX.match(name) and name not in VARIABLES):
        ours = name.startswith(_PREFIX)
        nearest = difflib.get_close_matches(name.lower(), VARIABLES, 1, 0.6 if ours else _ALIKE)
        if ours or nearest:
            refusals.append(_refusal(name, *nearest))
    return refusals


def _refusal(name: str, nearest: str = "") -> HostError:
    return HostError(
        "unknown_variable",
        "%s is not a variable of this collection." % name,
        evidence=["the nearest one is %s" % nearest if nearest else "none is named like it"],
        remedy="%s. docs/guide.md lists all variables; names that begin with %s are kept for them."
        % ("Write %s" % nearest if nearest else "Correct the name or remove it", _PREFIX),
    )
