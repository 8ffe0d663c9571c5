# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Until when insecure passthrough is accepted, since when a host has it, and what follows."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import times
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.records import load_json
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.boot import Boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.iommu import read_group
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy import acceptance
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC, OTHER = "0000:00:04.0", "0000:00:05.0"
UTC = datetime.timezone.utc
PAST, TODAY, FUTURE = "2026-02-28", "2026-03-01", "2026-03-02"  # as the fixture `now` sees it


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host with two free NICs."""
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.pci(OTHER, driver="e1000e")
    return machine


def request(*addresses: str, until: str | None = None, backend: str = "auto") -> Request:
    devices = [{"address": address} for address in addresses or (NIC,)]
    return Request(devices, backend=backend, accept_unsafe=True, insecure_until=until)


def bind(host: Machine, *addresses: str, until: str | None = None) -> BindingChange:
    binding = BindingChange(host.kernel, GuardContext(host.root), request(*addresses, until=until))
    if binding.changed:
        binding.apply()
    return binding


# --- dates ---


@pytest.mark.parametrize(
    "moment, over",
    [
        (datetime.datetime(2026, 3, 1, 0, 0, tzinfo=UTC), False),
        (datetime.datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC), False),
        (datetime.datetime(2026, 3, 2, 0, 0, tzinfo=UTC), True),
        # Half past one in Berlin is still the day before, UTC.
        (datetime.datetime(2026, 3, 2, 0, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=1))), False),
    ],
)
def test_the_declared_day_ends_at_midnight_utc(moment: datetime.datetime, over: bool) -> None:
    assert acceptance.is_expired("2026-03-01", moment) is over


@pytest.mark.parametrize("until", [None, "", "  "])
def test_without_a_date_there_is_no_end(until: str | None) -> None:
    assert not acceptance.is_expired(until, datetime.datetime.max.replace(tzinfo=UTC))


def test_the_last_day_of_all_never_ends() -> None:
    assert not acceptance.is_expired("9999-12-31", datetime.datetime(2999, 1, 1, tzinfo=UTC))


def test_mediated_devices_beside_an_iommu_are_not_insecure(host: Machine) -> None:
    """VFIO calls their groups as those of its own no-IOMMU mode."""
    host.tree.remove("/sys/kernel/iommu_groups")
    host.tree.dir("/sys/class/iommu/dmar0")
    base = "/sys/kernel/iommu_groups/9"
    host.tree.dir(base + "/devices/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001")
    host.tree.file(base + "/name", "vfio-noiommu")
    found = acceptance.report(host.root, {"flags": [], "insecure_passthrough": False}, "2020-01-01", times.utc_now())
    assert not found["active"] and not found["expired"]
    assert read_group(host.root, 9).chardev == "/dev/vfio/9"


@pytest.mark.parametrize("until", ["soon", "2026-13-01", "2026-02-30", "01.03.2026", "20260301", "2026-3-1"])
def test_what_is_no_date_is_refused_with_the_right_form(until: str) -> None:
    with pytest.raises(HostError) as caught:
        acceptance.end_of(until)
    assert caught.value.code == "insecure_until" and until in caught.value.message
    assert "YYYY-MM-DD" in caught.value.remedy and "UTC" in caught.value.remedy


# --- the record ---


def test_the_record_keeps_the_first_time(
    host: Machine, now: datetime.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind(host)
    assert load_json(host.root, BINDINGS)["insecure_since"] == "2026-03-01T12:00:00Z"
    monkeypatch.setattr(times, "utc_now", lambda: now + datetime.timedelta(days=3))
    assert not bind(host).changed
    bind(host, NIC, OTHER)
    assert load_json(host.root, BINDINGS)["insecure_since"] == "2026-03-01T12:00:00Z"


def test_an_isolated_host_has_no_time(host: Machine) -> None:
    host.tree.group(1, NIC)
    bind(host)
    recorded = load_json(host.root, BINDINGS)
    assert recorded["backend"] == "iommu"
    assert recorded["insecure_since"] is None and recorded["insecure_until"] is None


# --- after the date ---


def test_no_device_is_taken_after_the_date(host: Machine) -> None:
    before = host.tree.content()
    with pytest.raises(Refused) as caught:
        BindingChange(host.kernel, GuardContext(host.root), request(until=PAST))
    assert caught.value.code == "insecure_expired" and PAST in str(caught.value)
    assert "noiommu_insecure_until" in caught.value.remedy and "rollback" in caught.value.remedy
    assert host.tree.content() == before


def test_on_the_last_day_it_still_works(host: Machine) -> None:
    bind(host, until=TODAY)
    assert host.driver_of(NIC) == "vfio-pci"
    assert load_json(host.root, BINDINGS)["insecure_until"] == TODAY


def test_what_is_taken_stays_and_can_always_be_given_back(
    host: Machine, now: datetime.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind(host, NIC, OTHER, until=TODAY)
    monkeypatch.setattr(times, "utc_now", lambda: now + datetime.timedelta(days=1))
    assert not bind(host, NIC, OTHER, until=TODAY).changed
    bind(host, NIC, until=TODAY)
    assert (host.driver_of(NIC), host.driver_of(OTHER)) == ("vfio-pci", "e1000e")
    with pytest.raises(Refused):
        bind(host, NIC, OTHER, until=TODAY)
    BindingChange(host.kernel, GuardContext(host.root), Request([])).apply()
    assert host.driver_of(NIC) == "e1000e"


def test_a_boot_after_the_date_brings_up_what_was_accepted_before(
    host: Machine, now: datetime.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind(host, until=TODAY)
    host.unbind(NIC)
    monkeypatch.setattr(times, "utc_now", lambda: now + datetime.timedelta(days=99))
    assert Boot(host.kernel, GuardContext(host.root), lambda line: None).bind() == 0
    assert host.driver_of(NIC) == "vfio-pci"


def test_a_new_date_renews(host: Machine) -> None:
    bind(host, until=TODAY)
    assert bind(host, until=FUTURE).changed
    assert load_json(host.root, BINDINGS)["insecure_until"] == FUTURE


# --- the verdict ---


def verdict(tree: Tree, until: str | None, accept: bool = True) -> dict[str, Any]:
    tree.file("/proc/sys/kernel/tainted", "0")
    tree.file("/proc/sys/kernel/osrelease", "6.1.0-test")
    tree.file("/etc/os-release", "ID=debian")
    context = GuardContext(tree.root, NetState([], []))
    return Preflight(
        tree.root, context, Declaration([{"address": NIC}], [], accept_unsafe=accept, insecure_until=until)
    ).report()


def codes(report: dict[str, Any]) -> set[str]:
    return {refusal["code"] for refusal in report["verdict"]["refusals"]}


def test_preflight_refuses_after_the_date(host: Machine) -> None:
    report = verdict(host.tree, PAST)
    assert "insecure_expired" in codes(report) and not report["verdict"]["ok"]
    # The backend is still named: those who only compare go on.
    assert report["verdict"]["backend"] == "dkms"
    assert report["insecure"] == {
        "active": False,
        "since": None,
        "since_from": None,
        "until": PAST,
        "expired": True,
        "used_since_boot": False,
    }
    assert "insecure_expired" not in codes(verdict(host.tree, TODAY))
    assert "insecure_expired" not in codes(verdict(host.tree, None))


def test_a_host_with_an_iommu_has_nothing_that_expires(host: Machine) -> None:
    host.tree.group(1, NIC)
    assert "insecure_expired" not in codes(verdict(host.tree, PAST))


def test_the_time_comes_from_the_record_and_else_from_the_log(host: Machine) -> None:
    bind(host)
    report = verdict(host.tree, FUTURE)
    assert report["insecure"]["active"] is True
    assert (report["insecure"]["since"], report["insecure"]["since_from"]) == ("2026-03-01T12:00:00Z", "record")
    host.tree.file(BINDINGS, "damaged")
    assert verdict(host.tree, FUTURE)["insecure"]["since"] is None
    host.tree.file("/proc/sys/kernel/tainted", "64")
    entry = {"since": "2026-02-01T00:00:00Z", "insecure_passthrough": True}
    other = {"since": "2026-01-01T00:00:00Z", "insecure_passthrough": False}
    taint = {"flags": [{"attribution": [entry, other]}], "insecure_passthrough": True}
    found = acceptance.report(host.root, taint, None, times.utc_now())
    assert (found["since"], found["since_from"]) == ("2026-02-01T00:00:00Z", "log")
