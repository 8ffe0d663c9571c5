# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of single virtual functions: declared, set in the transaction and at boot, recorded, and given back."""

from __future__ import annotations

import errno
import json
import time
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS, ORIGINALS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import sriov, vf_control
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.transaction import Transaction
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.vf_settings import declared_settings, problems
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.vf_transaction import configure
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import vf_netlink
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import verify
from ansible_collections.baremetal.noiommu.tests.unit.support import fake_rtnetlink
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_rtnetlink import Driver
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    boot,
    converge,
    fails_everywhere,
    killed_everywhere,
    transitions,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PF, MAC = "0000:01:00.0", "52:54:00:00:00:20"
VFS = [Tree.vf_address(PF, index) for index in range(8)]
FIRST, SECOND = "52:54:00:aa:00:00", "52:54:00:aa:00:01"
AUTOPROBE = "/sys/bus/pci/devices/%s/sriov_drivers_autoprobe" % PF
FUNCTIONS = [
    {"vf": ["0"], "mac": FIRST, "trust": True},
    {"vf": ["3"], "mac": SECOND, "spoof_check": False, "max_tx_rate": 100, "link_state": "disable"},
    {"vf": ["0", "2-3"], "vlan": 100, "qos": 3},
]


def want(functions: list[dict[str, Any]], vfs: int = 4, *taken: str) -> Request:
    """Virtual functions with settings, the first three of which are the data plane's."""
    devices = [{"pf": MAC, "vf": list(taken or ("0-2",))}]
    return Request(devices, accept_unsafe=True, sriov=[{"pf": "pf0", "vfs": vfs, "functions": functions}])


SET_UP, PLAIN = want(FUNCTIONS), want([])


@pytest.fixture
def host(machine: Machine) -> Machine:
    machine.tree.pci(PF, "8086:10c9", driver="igb")
    machine.tree.net("pf0", PF, MAC, up=True)
    machine.tree.sriov(PF)
    machine.tree.driver("igbvf")
    return machine


@pytest.fixture
def driver(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    monkeypatch.setattr(vf_control, "_LINK_WAIT", 0.0)
    return fake_rtnetlink.install(host, monkeypatch)


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def order(host: Machine, *parts: str) -> list[int]:
    """Where the first requests with these parts came."""
    return [next(at for at, request in enumerate(host.requests) if part in request) for part in parts]


def is_as_declared(driver: Driver) -> bool:
    first, third, last = (driver.of(PF, index) for index in (0, 2, 3))
    return (
        (first["mac"], first["trust"], first["vlan"], first["spoof_check"]) == (raw(FIRST), 1, (100, 3, 0x8100), 1)
        and (third["mac"], third["vlan"]) == (b"\0" * 6, (100, 3, 0x8100))
        and (last["mac"], last["spoof_check"], last["rate"], last["link_state"]) == (raw(SECOND), 0, (0, 100), 2)
    )


# --- made with their settings ---


def test_they_are_set_before_any_driver_sees_them(host: Machine, driver: Driver) -> None:
    converge(host, SET_UP)
    assert is_as_declared(driver) and driver.of(PF, 1)["vlan"] == (0, 0, 0x8100)
    quiet, made, mac, trust, loud, probed, bound = order(
        host,
        AUTOPROBE + " <- 0",
        "sriov_numvfs <- 4",
        "virtual function 0: mac",
        "virtual function 0: trust",
        AUTOPROBE + " <- 1",
        "drivers_probe <- " + VFS[3],
        "vfio-pci/bind <- " + VFS[0],
    )
    assert quiet < made < mac < trust < loud < probed < bound
    # The one that the host keeps came up with its address.
    assert host.root.read_text("/sys/bus/pci/devices", VFS[3], "net", "vf134", "address") == SECOND
    assert not binding(host, SET_UP).changed


def test_check_mode_predicts_them(host: Machine, driver: Driver) -> None:
    predicted = binding(host, SET_UP, check_mode=True)
    steps, after, diff = predicted.steps, predicted.after(), predicted.diff()
    assert host.requests == []
    assert "%s: virtual function 0: set mac %s, vlan 100, qos 3, vlan_protocol 802.1Q, trust on" % (PF, FIRST) in steps
    real = binding(host, SET_UP)
    assert real.steps == steps
    real.apply()
    assert real.after()["sriov"] == after["sriov"]
    assert after["sriov"][0]["functions"][0] == {
        "vf": 0,
        "mac": FIRST,
        "vlan": 100,
        "qos": 3,
        "vlan_protocol": "802.1Q",
        "trust": True,
    }
    assert "  3: mac %s, vlan 100" % SECOND in diff[0]["after"]
    written = next(part for part in diff if part["after_header"].startswith(BINDINGS))
    assert written["after"] == host.tree.at(BINDINGS).read_text()


def test_without_settings_nothing_is_asked(host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vf_netlink, "_ask", None)
    converge(host, PLAIN)
    assert "functions" not in json.loads(host.root.read_text(BINDINGS))["sriov"][0]


def test_a_rollback_leaves_nothing(host: Machine, driver: Driver) -> None:
    content = host.tree.content()
    converge(host, SET_UP)
    predicted = binding(host, NOTHING, check_mode=True).after()
    one = converge(host, NOTHING)
    assert one.after() == predicted and host.tree.content() == content
    assert driver.functions == {} and not one.warnings


# --- changed and given back, without another number ---


def test_settings_that_change_are_set_alone(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    host.requests.clear()
    one = converge(host, SET_UP)
    assert is_as_declared(driver) and not any("numvfs" in request for request in host.requests)
    assert one.before()["sriov"][0]["functions"][0]["trust"] is False
    # igbvf has the last one: it is bound anew, and so learns its address.
    unbound, mac, bound = order(host, "igbvf/unbind <- " + VFS[3], "virtual function 3: mac", "igbvf/bind <- " + VFS[3])
    assert unbound < mac < bound
    assert host.root.read_text("/sys/bus/pci/devices", VFS[3], "net", "vf134", "address") == SECOND
    assert not binding(host, SET_UP).changed


def test_those_declared_no_more_go_back(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    fresh = {key: dict(state) for key, state in driver.functions.items()}
    driver.of(PF, 1)["trust"] = 1  # somebody's
    fresh[PF, 1]["trust"] = 1
    converge(host, SET_UP)
    converge(host, PLAIN)
    assert driver.functions == fresh
    assert "functions" not in json.loads(host.root.read_text(ORIGINALS))["sriov"][PF]
    assert not binding(host, PLAIN).changed


def test_what_the_host_had_set_up_comes_back(host: Machine, driver: Driver) -> None:
    host.functions(PF, 4)
    driver.of(PF, 0).update(mac=raw("52:54:00:bb:00:00"), vlan=(7, 0, 0x88A8), trust=1)
    content, before = host.tree.content(), {key: dict(state) for key, state in driver.functions.items()}
    converge(host, SET_UP)
    assert is_as_declared(driver)
    one = converge(host, NOTHING)
    assert driver.functions == before and not one.warnings
    assert host.root.read_text("/sys/bus/pci/devices", VFS[0], "net", "vf128", "address") == "52:54:00:bb:00:00"
    assert not [path for path in set(content) ^ set(host.tree.content()) if not path.startswith("/sys/class/net/")]


def test_what_the_host_had_set_up_comes_back_with_its_number(host: Machine, driver: Driver) -> None:
    host.functions(PF, 2)
    driver.of(PF, 1).update(mac=raw("52:54:00:bb:00:01"), vlan=(7, 0, 0x8100), spoof_check=0)
    before = {key: dict(state) for key, state in driver.functions.items()}
    converge(host, want([{"vf": ["0"], "mac": FIRST}]))
    assert driver.of(PF, 1) == before[PF, 1], "it was made anew, and nothing else is declared"
    assert not binding(host, want([{"vf": ["0"], "mac": FIRST}])).changed
    host.functions(PF, 0)
    assert boot(host)[0] == 0 and driver.of(PF, 1) == before[PF, 1]
    converge(host, NOTHING)
    assert driver.functions == before and host.driver_of(VFS[1]) == "igbvf"
    assert not host.root.exists(ORIGINALS)


def test_drift_is_named_and_set_right(host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    converge(host, SET_UP)
    assert not list(verify.Verify(host.root)._devices())
    driver.of(PF, 2)["vlan"] = (101, 3, 0x8100)
    driver.of(PF, 0)["trust"] = 0
    assert list(verify.Verify(host.root)._devices()) == [
        "%s: virtual function 0 has trust off instead of trust on" % PF,
        "%s: virtual function 2 has vlan 101 instead of vlan 100" % PF,
    ]
    converge(host, SET_UP)
    assert is_as_declared(driver) and not list(verify.Verify(host.root)._devices())


def test_settings_that_cannot_be_read_keep_nothing_else_from_being_compared(
    host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    converge(host, SET_UP)
    host.unbind(VFS[0])

    def fails(*_args: Any) -> None:
        raise HostError("netlink", "The kernel did not answer.")

    monkeypatch.setattr("%s.read_settings" % sriov.__name__, fails)
    comparison = verify.Verify(host.root)
    assert any(VFS[0] in line for line in comparison._devices())
    assert any("virtual functions of %s: The kernel did not answer" % PF in text for text in comparison._unknown)


def test_what_could_not_go_back_keeps_nothing_else(host: Machine, driver: Driver) -> None:
    host.functions(PF, 4)
    converge(host, SET_UP)
    driver.refuses["rate"] = errno.EINVAL
    one = converge(host, NOTHING)
    assert driver.of(PF, 0)["mac"] == b"\0" * 6 and host.driver_of(VFS[0]) == "igbvf"
    (warning,) = one.warnings
    assert "virtual function 3 of %s did not go back" % PF in warning and "max_tx_rate" in warning


# --- a failure anywhere ---

SMALL = want([{"vf": ["0"], "mac": FIRST}, {"vf": ["1"], "mac": SECOND, "vlan": 100}], 2, "0")
SMALL_PLAIN = want([], 2, "0")
CASES = {
    "make": ([], SMALL),
    "set up": ([SMALL_PLAIN], SMALL),
    "set up no more": ([SMALL], SMALL_PLAIN),
    "make more": ([SMALL], want([{"vf": ["0"], "mac": SECOND}, {"vf": ["2"], "trust": True}], 3, "0")),
}


def state(driver: Driver) -> Any:
    """Everything but for what virtual functions get anew when they are made anew: their groups and interfaces."""

    def look(host: Machine) -> tuple[Any, ...]:
        drivers = {one: host.driver_of(one) for one in host.root.listdir("/sys/bus/pci/devices")}
        settings = {key: tuple(found.items()) for key, found in driver.functions.items()}
        return drivers, settings, host.root.read_text(AUTOPROBE), host.tree.content("/etc"), host.tree.content("/var")

    return look


@transitions(CASES)
def test_a_failure_anywhere_puts_everything_back(
    host: Machine, driver: Driver, before: list[Request], wanted: Request
) -> None:
    fails_everywhere(host, before, wanted, state(driver))


@transitions({name: CASES[name] for name in ("make", "set up no more")})  # they take their time
def test_a_run_killed_anywhere_is_finished_or_taken_back(
    host: Machine, driver: Driver, before: list[Request], wanted: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_everywhere(host, before, wanted, monkeypatch)


@pytest.mark.parametrize(
    "setting,code,words",
    [
        ("link_state", errno.EOPNOTSUPP, "did not set link_state of virtual function 3"),
        ("vlan", errno.EPROTONOSUPPORT, "did not set vlan, qos, vlan_protocol of virtual function 0"),
        ("rate", errno.EINVAL, "did not set min_tx_rate, max_tx_rate of virtual function 3"),
        ("mac", errno.EPERM, "did not set mac of virtual function 0"),
    ],
)
def test_what_a_driver_cannot_do(host: Machine, driver: Driver, setting: str, code: int, words: str) -> None:
    content = host.tree.content()
    driver.refuses[setting] = code
    with pytest.raises(HostError) as caught:
        binding(host, SET_UP).apply()
    assert caught.value.code == "sriov" and words in caught.value.message
    assert "The driver igb" in caught.value.message and PF in caught.value.message
    assert errno.errorcode[code] in caught.value.message and caught.value.remedy
    assert not any("NOT put back" in line for line in caught.value.evidence)
    assert host.tree.content() == content


def test_what_a_driver_takes_and_does_not_do(host: Machine, driver: Driver) -> None:
    driver.deaf.add("spoof_check")
    with pytest.raises(HostError, match="says that it set spoof_check of virtual function 3") as caught:
        binding(host, SET_UP).apply()
    assert caught.value.evidence[:2] == ["set: spoof_check off", "read: spoof_check on"]
    assert host.root.read_int("/sys/bus/pci/devices", PF, "sriov_numvfs") == 0


def test_what_a_driver_does_not_tell_is_refused_before_anything_changes(host: Machine, driver: Driver) -> None:
    converge(host, PLAIN)
    host.requests.clear()
    driver.silent.add("trust")
    with pytest.raises(Refused, match="The driver igb does not know trust of virtual function 0 of %s" % PF):
        binding(host, SET_UP)
    assert host.requests == []
    converge(host, NOTHING)
    with pytest.raises(HostError, match="does not know trust"):  # there it can be found out only then
        binding(host, SET_UP).apply()
    assert host.root.read_int("/sys/bus/pci/devices", PF, "sriov_numvfs") == 0


def test_a_rate_waits_for_the_link(host: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """igb compares it with the speed, which is none yet right after the interface was set up."""
    driver.refuses["rate"] = errno.EINVAL
    host.tree.file("/sys/class/net/pf0/carrier", "0")
    monkeypatch.setattr(vf_control, "_LINK_WAIT", 60.0)

    def comes_up(_seconds: float) -> None:
        host.tree.file("/sys/class/net/pf0/carrier", "1")
        driver.refuses.clear()

    monkeypatch.setattr(vf_control.time, "sleep", comes_up)
    converge(host, SET_UP)
    assert is_as_declared(driver)


# --- refusals ---


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


# --- at boot ---


@pytest.fixture
def booted(host: Machine, driver: Driver) -> Machine:
    converge(host, SET_UP)
    host.functions(PF, 0)
    host.requests.clear()
    return host


def test_each_boot_sets_them_again(booted: Machine, driver: Driver) -> None:
    failed, lines = boot(booted)
    assert failed == 0 and is_as_declared(driver), lines
    made, mac, probed, bound = order(
        booted,
        "sriov_numvfs <- 4",
        "virtual function 0: mac",
        "drivers_probe <- " + VFS[3],
        "vfio-pci/bind <- " + VFS[0],
    )
    assert made < mac < probed < bound
    assert any("virtual function 0: set mac %s, vlan 100" % FIRST in line for line in lines)
    assert not binding(booted, SET_UP).changed
    booted.requests.clear()
    assert boot(booted)[0] == 0 and booted.requests == []


def test_functions_that_others_made_are_set_up(booted: Machine, driver: Driver) -> None:
    booted.functions(PF, 4)
    failed, lines = boot(booted)
    assert failed == 0 and is_as_declared(driver), lines
    assert not binding(booted, SET_UP).changed


def test_one_that_cannot_be_set_up_is_not_bound(booted: Machine, driver: Driver) -> None:
    driver.refuses["trust"] = errno.EIO  # which only the first one needs
    failed, lines = boot(booted)
    assert failed == 2 and [booted.driver_of(address) for address in VFS[:3]] == [None, "vfio-pci", "vfio-pci"]
    assert any("virtual function 0 was not set up" in line and "EIO" in line for line in lines)
    assert any("%s: skipped, as it could not be set up as declared" % VFS[0] in line for line in lines)


def test_one_of_the_hosts_that_cannot_be_set_up_gets_no_driver(booted: Machine, driver: Driver) -> None:
    driver.refuses["spoof_check"] = errno.EIO  # which only the last one needs
    failed, _lines = boot(booted)
    assert failed == 1 and booted.driver_of(VFS[3]) is None and booted.driver_of(VFS[0]) == "vfio-pci"


def test_without_a_limit_it_works_as_well(booted: Machine, driver: Driver) -> None:
    driver.refuses["rate"] = errno.EINVAL
    failed, lines = boot(booted)
    assert failed == 1 and booted.driver_of(VFS[3]) == "igbvf", lines
    assert driver.of(PF, 3)["mac"] == raw(SECOND)


def test_a_boot_does_not_touch_one_that_the_host_needs(
    booted: Machine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted.functions(PF, 4)
    net = NetState([], [Route("inet", "main", "default", "192.0.2.1", (1134,), False)])
    monkeypatch.setattr(GuardContext, "read_net", lambda self: net)
    monkeypatch.setattr(GuardContext, "net", net)
    boot(booted)
    assert driver.of(PF, 3)["mac"] == b"\0" * 6 and driver.of(PF, 0)["mac"] == raw(FIRST)


def test_a_link_is_waited_for_once(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vf_control, "_LINK_WAIT", 0.3)
    host.tree.file("/sys/class/net/pf0/carrier", "0")
    begin = time.monotonic()
    assert [vf_control._has_link(host.root, "pf0") for _function in range(20)] == [False] * 20
    assert 0.3 <= time.monotonic() - begin < 3


def test_a_refused_address_leaves_the_hosts_driver_its_function(host: Machine, driver: Driver) -> None:
    host.functions(PF, 4)
    before = host.driver_of(VFS[3])
    assert before is not None
    driver.refuses["mac"] = errno.EPERM
    transaction = Transaction(host.kernel)
    pf = PciBus(host.root).get(PF)
    assert pf is not None
    with pytest.raises(HostError):
        configure(transaction, pf, {3: {"mac": SECOND}})
    assert host.driver_of(VFS[3]) == before
