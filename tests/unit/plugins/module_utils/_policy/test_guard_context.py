# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read for the guards: sysfs and sockets must show the same network namespace."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import namespaces
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(namespaces.time, "sleep", found.append)
    return found


def test_sysfs_of_the_own_namespace_costs_no_waiting(nic: Tree, pauses: list[float]) -> None:
    nic.file("/sys/class/net/bonding_masters")
    namespaces.ensure_ours(nic.root, lambda: [(2, "eth1")])
    assert pauses == []


@pytest.mark.parametrize("seen", [[(1, "lo")], [(3, "eth1")], [(2, "eth1"), (3, "eth2")], []])
def test_sysfs_of_another_namespace_is_an_error(nic: Tree, pauses: list[float], seen: list[tuple[int, str]]) -> None:
    with pytest.raises(HostError) as caught:
        namespaces.ensure_ours(nic.root, lambda: seen)
    assert 0.5 < sum(pauses) < 2 and caught.value.evidence and "container" in caught.value.remedy


def test_both_sides_of_the_difference_are_shown(nic: Tree, pauses: list[float]) -> None:
    with pytest.raises(HostError) as caught:
        namespaces.ensure_ours(nic.root, lambda: [(1, "lo")])
    assert caught.value.evidence == [
        "/sys/class/net has, and the process has not: eth1 (index 2)",
        "the process has, and /sys/class/net has not: lo (index 1)",
    ]


def test_renames_and_containers_that_come_and_go_are_no_other_namespace(nic: Tree, pauses: list[float]) -> None:
    """Each look differs, but never twice in the same way."""
    answers = iter([[(2, "eth0")], [(2, "eth1"), (9, "veth9")], [(2, "eth1"), (10, "veth10")]])
    namespaces.ensure_ours(nic.root, lambda: next(answers))
    assert len(pauses) == 1


def test_the_running_host_is_asked_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(namespaces, "ensure_ours", asked.append)
    monkeypatch.setattr(NetState, "read", lambda: NetState([], []))
    context = GuardContext(Root("/"))
    assert context.net == context.net == NetState([], []) and len(asked) == 1
