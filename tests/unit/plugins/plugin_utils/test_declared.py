# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each way of declaring something wrongly is named by variable, entry and key, and what modules accept is accepted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.declared import refusals

GRANTS = {"group": "dataplane", "users": ["ann"], "services": [{"name": "fwd", "profile": "dpdk"}], "gid": "990"}


@pytest.mark.parametrize(
    "name, value",
    [
        ("noiommu_devices", [{"mac": "52:54:00:12:34:56"}, {"vendor_device": "8086:10d3", "count": "2"}]),
        ("noiommu_devices", [{"pf": "eth1", "vf": [0, "2-3"]}, {"slot": 4}, {"slot": 4.1}]),
        ("noiommu_devices", [{"pf": "eth1", "vf": "0-3"}]),
        ("noiommu_devices", [{"mac": "52:54:00:12:34:56", "address": None}]),
        ("noiommu_devices", []),
        ("noiommu_devices", ""),
        ("noiommu_devices", None),
        ("noiommu_sriov", [{"pf": "eth1", "vfs": 4}]),
        ("noiommu_hugepages", [{"size": "2M", "count": 512}, {"size": 1073741824, "count": "4", "node": 0}]),
        ("noiommu_hugepage_mounts", [{"path": "/mnt/huge", "size": "2M", "mode": "0770", "group": "dataplane"}]),
        ("noiommu_access", GRANTS),
        ("noiommu_access", {**GRANTS, "users": "ann", "memlock": 8589934592, "hugetlbfs": "no"}),
        ("noiommu_access", {}),
        ("noiommu_accept_unsafe", "yes"),
        ("noiommu_reboot_ok", 1),
        ("noiommu_reboot_ok", False),
        ("noiommu_insecure_until", "2027-01-31"),
        ("noiommu_state", "absent"),
    ],
)
def test_what_is_accepted(name: str, value: Any) -> None:
    assert refusals({name: value}) == []


@pytest.mark.parametrize(
    "name, value, seen",
    [
        (
            "noiommu_access",
            {"group": "g", "memlok": 1},
            "noiommu_access.memlok: there is no such key; did you mean memlock?",
        ),
        (
            "noiommu_access",
            {"users": "ann", "services": [{"nam": "fwd"}]},
            "noiommu_access.services[0].nam: there is no",
        ),
        ("noiommu_access", {"services": ["fwd"]}, "noiommu_access.services[0]: expected a mapping with the keys name"),
        ("noiommu_access", {"users": [{"name": "ann"}]}, "noiommu_access.users[0]: expected a text"),
        ("noiommu_access", {"profile": "dpkd"}, "noiommu_access.profile: expected one of dpdk, spdk, ovs, custom"),
        ("noiommu_access", {"gid": "staff"}, "noiommu_access.gid: expected a whole number, found 'staff'"),
        ("noiommu_access", {"users": ["ann"]}, "noiommu_access: The grants name no group."),
        ("noiommu_access", {"gid": 500}, "noiommu_access: The grants name no group."),
        ("noiommu_access", {"group": "Data Plane"}, "noiommu_access.group: 'Data Plane' is not a group name."),
        ("noiommu_access", {**GRANTS, "memlock": "8G"}, "noiommu_access.memlock: '8G' is not an amount of locked"),
        (
            "noiommu_access",
            {"group": "g", "services": [{"name": "fwd"}, {"name": "../fwd"}]},
            "noiommu_access.services[1]: '../fwd' is not the name of a systemd service.",
        ),
        (
            "noiommu_access",
            {"group": "g", "profile": "custom", "services": [{"name": "fwd"}]},
            "noiommu_access.services[0]: The profile custom of fwd says nothing of what it needs.",
        ),
        (
            "noiommu_access",
            {"group": "g", "binaries": [{"path": "/usr/bin/fwd", "profile": "custom", "capabilities": "net_raw,fly"}]},
            "noiommu_access.binaries[0]: There is no capability CAP_FLY.",
        ),
        (
            "noiommu_access",
            {"group": "g", "binaries": [{"path": "fwd"}]},
            "noiommu_access.binaries[0]: 'fwd' is not an",
        ),
        ("noiommu_access", "dataplane", "noiommu_access: expected a mapping with the keys group"),
        (
            "noiommu_devices",
            [{"mac": "a"}, {"adress": "b"}],
            "noiommu_devices[1].adress: there is no such key; did you",
        ),
        ("noiommu_devices", [{"mac": "a", "slot": "4"}], "noiommu_devices[0]: mac and slot cannot be in one entry"),
        ("noiommu_devices", [{"count": 1}], "noiommu_devices[0]: needs one of address, vendor_device"),
        ("noiommu_devices", [{"mac": "a", "vf": [1]}], "noiommu_devices[0]: vf needs pf"),
        ("noiommu_devices", ["0000:04:00.0"], "noiommu_devices[0]: expected a mapping with the keys address"),
        ("noiommu_devices", '[{"mac": "a"}]', 'noiommu_devices: expected a list of mappings, found \'[{"mac": "a"}]\''),
        ("noiommu_devices", {"mac": "a"}, "noiommu_devices: expected a list of mappings, found {'mac': 'a'}"),
        ("noiommu_hugepages", [{"size": "2M"}], "noiommu_hugepages[0]: the key count is missing"),
        ("noiommu_hugepages", [{"size": "2M", "count": "many"}], "noiommu_hugepages[0].count: expected a whole number"),
        ("noiommu_hugepages", [{"size": "2M", "count": 1.5}], "noiommu_hugepages[0].count: expected a whole number"),
        ("noiommu_hugepage_mounts", [{"path": "/mnt"}], "noiommu_hugepage_mounts[0]: the key size is missing"),
        ("noiommu_sriov", [{"pf": "eth1"}], "noiommu_sriov[0]: the key vfs is missing"),
        ("noiommu_reboot_ok", "maybe", "noiommu_reboot_ok: expected true or false, found 'maybe'"),
        ("noiommu_accept_unsafe", ["true"], "noiommu_accept_unsafe: expected true or false, found ['true']"),
        ("noiommu_backend", "dkm", "noiommu_backend: expected one of auto, iommu, builtin, dkms, found 'dkm'"),
        ("noiommu_state", True, "noiommu_state: expected one of present, absent, found True"),
        ("noiommu_insecure_until", "31.1.2027", "noiommu_insecure_until: expected the last day as YYYY-MM-DD"),
        ("noiommu_report_dir", ["a"], "noiommu_report_dir: expected a text, found ['a']"),
    ],
)
def test_what_is_wrong_is_named_in_the_operators_words(name: str, value: Any, seen: str) -> None:
    (refusal,) = refusals({name: value})
    assert refusal.code == "declaration" and refusal.message == name + " is not declared properly."
    assert refusal.evidence[0].startswith(seen), refusal.evidence
    assert name in refusal.remedy


def test_a_text_in_the_place_of_a_list_is_explained() -> None:
    """As in -e noiommu_devices='[...]', which Ansible hands on as text."""
    (refusal,) = refusals({"noiommu_devices": "[{mac: a}]"})
    assert "-e '{\"noiommu_devices\": ...}'" in refusal.remedy


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = refusals(
        {"noiommu_access": {"memlok": 1, "user": "ann"}, "noiommu_devices": [{"a": 1}], "noiommu_state": "gone"}
    )
    evidence = {refusal.message.split()[0]: refusal.evidence for refusal in found}
    assert set(evidence) == {"noiommu_access", "noiommu_devices", "noiommu_state"}
    assert len(evidence["noiommu_access"]) == 2
