# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a later step would refuse is part of the verdict."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import (
    Preflight,
)
from ansible_collections.baremetal.noiommu.plugins.modules import noiommu_info
from ansible_collections.baremetal.noiommu.tests.unit.support.preflight import (
    codes,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

ARGUMENTS = {
    "devices": [],
    "sriov": [],
    "accept_unsafe": True,
    "hugepages": None,
    "hugepage_mounts": None,
    "access": None,
    "host_memory": None,
}
LATER = [
    ("access", {"group": "dataplane", "users": ["nobody-here"]}, "user", "There is no user nobody-here on this host."),
    ("access", {"users": ["root"]}, "group", "The grants name no group."),
    (
        "access",
        {"group": "dataplane", "services": [{"name": "ovs"}]},
        "wrapper",
        "The service ovs.service runs nothing itself.",
    ),
    (
        "access",
        {"group": "dataplane", "binaries": [{"path": "/usr/bin/cat"}]},
        "binary",
        "/usr/bin/cat is not a data plane application.",
    ),
    ("access", {"group": "Data Plane"}, "group", "'Data Plane' is not a group name."),
    ("access", {"group": "dataplane", "memlock": "8G"}, "memlock", "'8G' is not an amount of locked memory."),
    (
        "access",
        {"group": "dataplane", "services": [{"name": "fwd"}]},
        "service",
        "There is no systemd service fwd.service on this host.",
    ),
    ("hugepages", [{"size": "3M", "count": 1}], "pool", "This host has no hugetlb pages of size 3M."),
    ("hugepages", [{"size": "2M", "count": 1, "node": 7}], "pool", "This host has no NUMA node 7."),
    ("hugepages", [{"size": "much", "count": 1}], "pool", "'much' is not a page size."),
    ("hugepages", [{"size": "2M", "count": 500}], "host_memory", "too little memory for the host itself"),
    ("hugepage_mounts", [{"path": "mnt", "size": "2M"}], "mount", ""),
]


@pytest.mark.parametrize("name, value, code, message", LATER)
def test_what_a_later_step_would_refuse_is_part_of_the_verdict(
    host: Tree, name: str, value: Any, code: str, message: str
) -> None:
    host.file("/etc/group", "root:x:0:")
    host.file("/etc/passwd", "root:x:0:0::/root:/bin/sh")
    host.file("/usr/lib/systemd/system/ovs.service", "[Service]\nExecStart=/bin/true")
    host.file("/usr/bin/cat", b"\x7fELF")
    host.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")
    host.file("/proc/meminfo", "MemTotal: 1048576 kB")
    before = host.content()
    result = noiommu_info.declared({**ARGUMENTS, name: value})
    refusals = Preflight(host.root, GuardContext(host.root, NetState([], [])), result).report()["verdict"]["refusals"]
    assert [refusal["code"] for refusal in refusals] == [code]
    assert message in refusals[0]["message"] and refusals[0]["remedy"]
    assert refusals[0]["evidence"][0] == "declared by noiommu_" + name
    assert host.content() == before


def test_all_that_is_wrong_with_pools_and_mounts_is_said_at_once(host: Tree) -> None:
    host.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")
    pools = [{"size": "2M", "count": 1}, {"size": "3M", "count": 1}, {"size": "2M", "count": -1}]
    mounts = [{"path": "mnt", "size": "2M"}, {"path": "/mnt/a", "size": "2M", "mode": "504"}]
    result = noiommu_info.declared({**ARGUMENTS, "hugepages": pools, "hugepage_mounts": mounts, "host_memory": "8G"})
    refusals = Preflight(host.root, GuardContext(host.root, NetState([], [])), result).report()["verdict"]["refusals"]
    assert [(refusal["evidence"][0], refusal["evidence"][-1].split(",")[0]) for refusal in refusals] == [
        ("declared by noiommu_hugepages", "[1]: size: 3M"),
        ("declared by noiommu_hugepages", "[2]: size: 2M"),
        ("declared by noiommu_hugepage_mounts", "[0]: path: mnt"),
        ("declared by noiommu_hugepage_mounts", "[1]: path: /mnt/a"),
    ]


def test_what_later_steps_accept_is_no_refusal(host: Tree) -> None:
    host.file("/etc/group", "root:x:0:")
    host.file("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh")
    host.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")
    mounts = [{"path": "/mnt/huge", "size": "2M", "group": "dataplane"}]
    access = {"group": "dataplane", "users": ["ann"]}
    given = {**ARGUMENTS, "access": access, "hugepage_mounts": mounts, "hugepages": [{"size": "2M", "count": "1"}]}
    context = GuardContext(host.root, NetState([], []))
    assert codes(Preflight(host.root, context, noiommu_info.declared(given)).report()) == []


def test_parts_are_converted_as_their_modules_do() -> None:
    found = noiommu_info.declared(
        {**ARGUMENTS, "hugepages": [{"size": 2097152, "count": "4"}], "access": {"gid": "990"}}
    )
    assert found.hugepages == [{"size": "2097152", "count": 4, "node": None}]
    assert found.access is not None and found.access["gid"] == 990
    with pytest.raises(HostError) as caught:
        noiommu_info.declared({**ARGUMENTS, "access": {"memlok": 1}})
    assert caught.value.code == "declaration" and "memlok" in str(caught.value)
