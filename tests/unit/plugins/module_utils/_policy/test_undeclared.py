# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an earlier run recorded is not given back because nothing was said."""

from __future__ import annotations

import os
from typing import Any, Sequence

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.undeclared import KINDS, undeclared
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.plugins.modules import vfio_binding
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import binding, converge
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PF = "0000:03:00.0"
NIC = "0000:00:04.0"
TAKEN = Request([{"address": NIC}], accept_unsafe=True)
STATE = "/var/lib/noiommu/"


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host with a card for the data plane and one that can have virtual functions."""
    tree = machine.tree
    tree.file("/proc/sys/kernel/osrelease", os.uname().release)
    tree.file("/proc/sys/kernel/tainted", "0")
    tree.pci(NIC, driver="e1000e")
    tree.net("eth1", NIC, "52:54:00:00:00:11")
    tree.pci(PF, "8086:10c9", driver="igb")
    tree.net("pf0", PF, "52:54:00:00:00:20")
    tree.sriov(PF)
    return machine


def verdict(host: Machine, *names: str, devices: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    declaration = Declaration(list(devices), [], accept_unsafe=True, undeclared=names)
    found = Preflight(host.root, GuardContext(host.root, NetState([], [])), declaration).report([])
    reasons = ("undeclared", "selector", "sriov")
    return [refusal for refusal in found["verdict"]["refusals"] if refusal["code"] in reasons]


def test_devices_that_nobody_declares_stay_and_the_verdict_says_so(host: Machine) -> None:
    converge(host, TAKEN)
    (refusal,) = verdict(host, *KINDS)
    assert "devices (noiommu_devices) is undefined or empty" in refusal["message"]
    assert refusal["evidence"] == [STATE + "originals.json: " + NIC, "/etc/noiommu/bindings.json: " + NIC]
    assert "noiommu_devices: []" in refusal["remedy"] and "noiommu_state: absent" in refusal["remedy"]
    assert "baremetal.noiommu.rollback" in refusal["remedy"]
    assert verdict(host) == [], "noiommu_info by itself asks for nothing"


def test_bindings_are_a_record_as_well(host: Machine) -> None:
    converge(host, TAKEN)
    host.tree.remove(STATE + "originals.json")
    (refusal,) = verdict(host, "devices")
    assert refusal["evidence"] == ["/etc/noiommu/bindings.json: " + NIC]


def test_a_host_that_never_had_anything_needs_no_word(host: Machine) -> None:
    assert verdict(host, *KINDS) == []


def test_the_module_alone_refuses_it_too(host: Machine) -> None:
    assert "default" not in vfio_binding.ARGUMENTS["devices"] and "default" not in vfio_binding.ARGUMENTS["sriov"]
    request = Request(None, sriov=None)
    assert not binding(host, request).changed, "nothing is recorded yet"
    converge(host, TAKEN)
    before = host.tree.content()
    with pytest.raises(Refused) as caught:
        binding(host, request)
    assert [refusal.code for refusal in caught.value.refusals] == ["undeclared"] and host.tree.content() == before
    change = binding(host, Request([], sriov=None))
    change.apply()
    assert not host.root.exists(STATE + "originals.json")


def test_virtual_functions_stay(host: Machine) -> None:
    converge(host, Request([], sriov=[{"pf": PF, "vfs": 2}], accept_unsafe=True))
    (refusal,) = verdict(host, *KINDS)
    assert "sriov (noiommu_sriov)" in refusal["message"] and PF in refusal["evidence"][0]
    with pytest.raises(Refused, match="noiommu_sriov"):
        binding(host, Request([{"address": NIC}], accept_unsafe=True, sriov=None))


def test_functions_that_nobody_declares_are_the_only_reason(host: Machine) -> None:
    """The devices that are still declared are not said to disappear."""
    converge(host, Request([{"pf": PF}], sriov=[{"pf": PF, "vfs": 2}], accept_unsafe=True))
    assert [refusal["code"] for refusal in verdict(host, "sriov", devices=[{"pf": PF}])] == ["undeclared"]


@pytest.mark.parametrize(
    "name, record, word",
    [
        ("hugepages", "hugepages.json", "noiommu_hugepages: []"),
        ("hugepage_mounts", "hugetlb-mounts.json", "noiommu_hugepage_mounts: []"),
        ("access", "access.json", "noiommu_access: {}"),
    ],
)
def test_the_rule_is_the_same_for_all_else(tree: Tree, name: str, record: str, word: str) -> None:
    assert undeclared(tree.root, KINDS) == []
    tree.file(STATE + record, "{}")
    (refusal,) = undeclared(tree.root, KINDS)
    assert name in refusal.message and refusal.evidence == [STATE + record + " is there"] and word in refusal.remedy


def test_a_long_list_is_cut(tree: Tree) -> None:
    devices = ", ".join('"0000:01:00.%d": {}' % number for number in range(30))
    tree.file(STATE + "originals.json", '{"version": 1, "devices": {%s}}' % devices)
    (refusal,) = undeclared(tree.root, ["devices"])
    assert refusal.evidence[0].endswith(" and 20 more")
