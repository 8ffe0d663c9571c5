# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings that cannot be, or that would disturb who uses a virtual function."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.vf_settings import declared_settings, problems
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_rtnetlink import Driver
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    binding,
    converge,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.vf_settings import (
    FIRST,
    FUNCTIONS,
    PLAIN,
    SET_UP,
    raw,
    want,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import PF, VFS


@pytest.mark.parametrize(
    "functions,words",
    [
        ([{"vf": ["0"]}], "functions[0]: sets nothing; there are mac, vlan"),
        ([{"vf": ["0"], "mac": "52:54:00:aa"}], "functions[0].mac: expected a MAC address such as"),
        ([{"vf": ["0"], "mac": "00:00:00:00:00:00"}], "functions[0].mac: 00:00:00:00:00:00 is no address"),
        ([{"vf": ["0"], "mac": "01:00:5e:00:00:01"}], "functions[0].mac: 01:00:5e:00:00:01 is a multicast address"),
        ([{"vf": ["0"], "mac": "FF-FF-FF-FF-FF-FF"}], "is a multicast address: the first byte must be even"),
        ([{"vf": ["0-1"], "mac": FIRST}], "functions[0].mac: is one address for 2 virtual functions"),
        ([{"mac": FIRST}], "functions[0].mac: is one address for 4 virtual functions"),
        ([{"vf": ["0"], "vlan": 4095}], "functions[0].vlan: expected a whole number from 0 to 4094, found 4095"),
        ([{"vf": ["0"], "vlan": -1}], "functions[0].vlan: expected a whole number from 0 to 4094"),
        ([{"vf": ["0"], "vlan": 1, "qos": 8}], "functions[0].qos: expected a whole number from 0 to 7, found 8"),
        ([{"vf": ["0"], "min_tx_rate": 9, "max_tx_rate": 8}], "min_tx_rate: 9 is more than max_tx_rate, which is 8"),
        ([{"vf": ["0"], "max_tx_rate": -8}], "functions[0].max_tx_rate: expected a whole number from 0"),
        ([{"vf": ["4"], "trust": True}], "functions[0].vf: there is no virtual function 4: vfs is 4"),
        ([{"vf": ["2-9"], "trust": True}], "functions[0].vf: there is no virtual function 9: vfs is 4"),
        ([{"vf": ["first"], "trust": True}], "functions[0].vf: 'first' is not an index of a virtual function."),
        (
            [{"vf": ["0-1"], "trust": True}, {"vf": ["1-2"], "trust": True}],
            "functions[1].trust: sriov[0].functions[0] sets it for virtual function 1 as well",
        ),
        ([{"vf": ["0"], "mac": FIRST}, {"vf": ["1"], "mac": FIRST.upper()}], FIRST + ": virtual function 0 of"),
    ],
)
def test_declarations_that_cannot_be(
    host: Machine, driver: Driver, functions: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(Refused) as caught:
        binding(host, want(functions))
    refusal = caught.value.refusals[0]
    assert refusal.code == "sriov" and any(words in line for line in refusal.evidence), refusal.evidence
    assert refusal.remedy and host.requests == []


def test_everything_wrong_is_said_at_once(host: Machine, driver: Driver) -> None:
    with pytest.raises(Refused) as caught:
        binding(host, want([{"vf": ["0"], "vlan": 5000, "qos": 9, "mac": "01:00:00:00:00:00"}, {"vf": ["7"]}]))
    assert len(caught.value.refusals[0].evidence) == 5


def test_no_limit_has_no_least_rate_above_it() -> None:
    assert declared_settings([{"vf": ["1"], "min_tx_rate": 9}], 4) == {1: {"min_tx_rate": 9, "max_tx_rate": 0}}


def test_two_rates_of_two_entries_are_both_set_and_compared() -> None:
    entries = [{"vf": ["0"], "min_tx_rate": 100}, {"vf": ["0-1"], "max_tx_rate": 1000}]
    assert not list(problems(entries, 2, "functions"))
    assert declared_settings(entries, 2) == {
        0: {"min_tx_rate": 100, "max_tx_rate": 1000},
        1: {"min_tx_rate": 0, "max_tx_rate": 1000},
    }
    entries[0]["min_tx_rate"] = 2000
    assert [str(problem) for problem in problems(entries, 2, "functions")] == [
        "functions[0].min_tx_rate: 2000 is more than max_tx_rate, which is 1000"
    ]


def test_without_a_tag_there_is_no_protocol() -> None:
    declared = declared_settings([{"vf": ["all"], "vlan": 0, "vlan_protocol": "802.1ad"}], 2)
    assert declared == {index: {"vlan": 0, "qos": 0, "vlan_protocol": "802.1Q"} for index in (0, 1)}


def test_a_physical_function_without_an_interface(host: Machine, driver: Driver) -> None:
    host.tree.remove("/sys/class/net/pf0")
    request = Request([], sriov=[{"pf": PF, "vfs": 4, "functions": [{"trust": True}]}])
    with pytest.raises(Refused, match="it has no network interface") as caught:
        binding(host, request)
    assert "/net: no interface of its own" in caught.value.refusals[0].evidence[0]
    converge(host, Request([], sriov=[{"pf": PF, "vfs": 4}]))


def test_a_port_of_a_switch_is_not_the_physical_functions_interface(host: Machine, driver: Driver) -> None:
    host.tree.net("aport", PF, "52:54:00:00:00:99")
    host.tree.file("/sys/class/net/aport/phys_port_name", "pf0vf1")
    converge(host, want([{"vf": ["0"], "mac": FIRST}]))
    assert driver.of(PF, 0)["mac"] == raw(FIRST)


def in_use(host: Machine, address: str) -> None:
    group = host.root.link_name(host.tree.real(address), "iommu_group")
    host.tree.file("/proc/4711/comm", "dpdk-testpmd")
    host.tree.dir("/proc/4711/fd")
    host.tree.at("/proc/4711/fd/17").symlink_to("/dev/vfio/" + group)


def test_one_in_use_is_not_reset(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    in_use(host, VFS[0])
    with pytest.raises(Refused, match=VFS[0]) as caught:
        binding(host, SET_UP)
    assert caught.value.refusals[0].code == "in_use" and "trust on" in caught.value.refusals[0].message
    converge(host, want([{"vf": ["0"], "max_tx_rate": 50}]))  # which resets nothing
    assert driver.of(PF, 0)["rate"] == (0, 50)


def test_one_that_the_host_needs_is_left_alone(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    net = NetState([], [Route("inet", "main", "default", "192.0.2.1", (1134,), False)])
    with pytest.raises(Refused, match="%s carries 1 of the host's routes" % VFS[3]):
        binding(host, SET_UP, net=net)


def test_preflight_says_the_same(host: Machine, driver: Driver) -> None:
    host.tree.file("/proc/sys/kernel/osrelease", "6.1.0")
    host.tree.file("/proc/sys/kernel/tainted", "0")
    for functions, words in (([{"vlan": 4095}], "not declared properly"), (FUNCTIONS, "")):
        declared = Declaration(PLAIN.devices, [{"pf": PF, "vfs": 4, "functions": functions}], accept_unsafe=True)
        verdict = Preflight(host.root, GuardContext(host.root), declared).report()["verdict"]
        found = [refusal["message"] for refusal in verdict["refusals"] if refusal["code"] == "sriov"]
        assert [words in message for message in found] == [True] * bool(words)
