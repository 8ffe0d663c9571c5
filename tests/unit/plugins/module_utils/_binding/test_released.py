# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices whose way back is not plain: drivers of UIO, drivers that are gone, originals that are none."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS, ORIGINALS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    converge,
    fails_everywhere,
    killed_everywhere,
)

NIC, OTHER = "0000:00:04.0", "0000:00:05.0"
BOTH = Request([{"address": NIC}, {"address": OTHER}], accept_unsafe=True)
UIO = "uio_pci_generic"


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host with two NICs on the host's drivers."""
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.pci(OTHER, "1af4:1041", driver="virtio-pci")
    machine.without_ids |= {UIO, "igb_uio"}
    return machine


def bind_by_hand(host: Machine, driver: str) -> None:
    """Do what dpdk-devbind.py does: override, bind, and clear the override."""
    host.unbind(NIC)
    host.tree.driver(driver)
    override = host.tree.real(NIC) + "/driver_override"
    host.tree.file(override, driver)
    host.bind(NIC, driver)
    host.tree.file(override, "(null)")


def drivers(host: Machine) -> list[str | None]:
    return [host.driver_of(address) for address in (NIC, OTHER)]


@pytest.mark.parametrize("driver", [UIO, "igb_uio"])
def test_a_driver_without_ids_gets_its_device_back(host: Machine, driver: str) -> None:
    bind_by_hand(host, driver)
    content = host.tree.content()
    converge(host, BOTH)
    assert drivers(host) == ["vfio-pci", "vfio-pci"]
    change = converge(host, NOTHING)
    assert drivers(host) == [driver, "virtio-pci"] and not change.warnings
    assert host.tree.content() == content, "no override is left"


def test_a_failed_run_gives_it_back_to_such_a_driver_as_well(host: Machine) -> None:
    bind_by_hand(host, UIO)
    fails_everywhere(host, [], BOTH, lambda host: (drivers(host), host.tree.content("/etc"), host.tree.content("/var")))


def test_and_a_killed_one(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    bind_by_hand(host, UIO)
    killed_everywhere(host, [], BOTH, monkeypatch)


def test_a_driver_that_is_gone_keeps_nobody(host: Machine) -> None:
    bind_by_hand(host, "igb_uio")
    converge(host, BOTH)
    host.tree.remove("/sys/bus/pci/drivers/igb_uio")
    host.broken.add("igb_uio")
    change = converge(host, NOTHING)
    assert drivers(host) == ["e1000e", "virtio-pci"]
    (warning,) = change.warnings
    assert warning.startswith("%s did not go back to igb_uio, but to the host's own driver e1000e: " % NIC)
    assert "igb_uio could not be loaded" in warning and warning in change.messages
    assert host.root.read_text(host.tree.real(NIC), "driver_override") == "(null)"
    assert not binding(host, NOTHING).changed


def test_where_no_driver_wants_it_that_is_said(host: Machine) -> None:
    bind_by_hand(host, "igb_uio")
    converge(host, BOTH)
    host.broken |= {"igb_uio", "e1000e"}
    (warning,) = converge(host, NOTHING).warnings
    assert drivers(host) == [None, "virtio-pci"] and "to none, as no driver of the host wants it" in warning


def lose_the_record(host: Machine) -> None:
    """Do what the refusal of a damaged record says."""
    converge(host, BOTH)
    host.tree.file(ORIGINALS, "{")
    host.tree.remove(ORIGINALS)


def take_by_hand(host: Machine) -> None:
    """Do what kmod/README.md shows."""
    host.load("noiommu")
    host.load("vfio-pci")
    host.unbind(NIC)
    host.add(NIC)
    host.tree.file(host.tree.real(NIC) + "/driver_override", "vfio-pci")
    host.bind(NIC, "vfio-pci")


def join_the_group_only(host: Machine) -> None:
    host.load("noiommu")
    host.unbind(NIC)
    host.add(NIC)


def use_vfios_own_mode(host: Machine) -> None:
    host.builtin_noiommu = True
    host.load("vfio-pci")
    host.tree.file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y")
    host.unbind(NIC)
    host.tree.file(host.tree.real(NIC) + "/driver_override", "vfio-pci")
    host.bind(NIC, "vfio-pci")


@pytest.mark.parametrize("before", [lose_the_record, take_by_hand, join_the_group_only, use_vfios_own_mode])
def test_our_own_state_is_no_original(host: Machine, before) -> None:
    before(host)
    change = binding(host, BOTH)
    change.apply()
    assert any("there is no record of it" in warning and NIC in warning for warning in change.warnings)
    assert drivers(host) == ["vfio-pci", "vfio-pci"]
    record = json.loads(host.root.read_text(ORIGINALS))["devices"][NIC]
    assert (record["driver"], record["driver_override"], record["probe"]) == (None, None, True)
    assert not binding(host, BOTH).changed
    change = converge(host, NOTHING)
    assert drivers(host) == ["e1000e", "virtio-pci"]
    assert any("not known: it went to the host's own driver e1000e" in warning for warning in change.warnings)
    assert host.root.read_text(host.tree.real(NIC), "driver_override") == "(null)"
    assert not host.root.exists(ORIGINALS) and not binding(host, NOTHING).changed


@pytest.fixture
def isolated(host: Machine) -> Machine:
    """The same host with an IOMMU, whose groups show nothing of who bound a device."""
    host.tree.group(1, NIC)
    host.tree.group(2, OTHER)
    return host


def lose_it_with_the_names(host: Machine) -> None:
    """Lose it, and boot: what names the devices is gone, and the boot unit has bound them."""
    lose_the_record(host)
    host.tree.remove("/dev/vfio/by-address")


def lose_it_with_the_bindings(host: Machine) -> None:
    lose_the_record(host)
    host.tree.remove(BINDINGS)


@pytest.mark.parametrize("before", [lose_the_record, lose_it_with_the_names, lose_it_with_the_bindings])
def test_with_an_iommu_as_well(isolated: Machine, before) -> None:
    before(isolated)
    change = converge(isolated, BOTH)
    assert change.backend == "iommu" and sum("there is no record of it" in text for text in change.warnings) == 2
    record = json.loads(isolated.root.read_text(ORIGINALS))["devices"][NIC]
    assert (record["driver"], record["driver_override"], record["probe"]) == (None, None, True)
    converge(isolated, NOTHING)
    assert drivers(isolated) == ["e1000e", "virtio-pci"]
    assert isolated.root.read_text(isolated.tree.real(NIC), "driver_override") == "(null)"
    assert not isolated.root.exists(ORIGINALS)


@pytest.mark.parametrize("before", [lose_the_record, lose_it_with_the_names])
@pytest.mark.parametrize("has_iommu", [False, True])
def test_what_each_boot_binds_is_released_although_the_record_is_lost(
    host: Machine, request: pytest.FixtureRequest, before, has_iommu: bool
) -> None:
    machine = request.getfixturevalue("isolated") if has_iommu else host
    before(machine)
    change = converge(machine, NOTHING)
    assert drivers(machine) == ["e1000e", "virtio-pci"]
    assert any("The original of %s is not known: %s has no record" % (NIC, ORIGINALS) in w for w in change.warnings)
    assert machine.root.read_text(machine.tree.real(NIC), "driver_override") == "(null)"
    assert not machine.root.exists(ORIGINALS) and not binding(machine, NOTHING).changed


def test_with_an_iommu_a_damaged_record_releases_its_device(isolated: Machine) -> None:
    converge(isolated, BOTH)
    originals = json.loads(isolated.root.read_text(ORIGINALS))
    originals["devices"][NIC] = {}
    isolated.tree.file(ORIGINALS, json.dumps(originals))
    isolated.tree.remove(BINDINGS)
    isolated.tree.remove("/dev/vfio/by-address")
    converge(isolated, NOTHING)
    assert drivers(isolated) == ["e1000e", "virtio-pci"]


@pytest.mark.parametrize("driver", ["vfio-pci", "pci-stub"])
def test_with_an_iommu_what_was_bound_without_us_is_an_original(isolated: Machine, driver: str) -> None:
    isolated.load("vfio-pci")
    isolated.unbind(NIC)
    isolated.tree.driver(driver)
    isolated.tree.file(isolated.tree.real(NIC) + "/driver_override", driver)
    isolated.bind(NIC, driver)
    assert not converge(isolated, BOTH).warnings
    converge(isolated, NOTHING)
    assert drivers(isolated) == [driver, "virtio-pci"]
    assert isolated.root.read_text(isolated.tree.real(NIC), "driver_override") == driver


def test_a_release_that_was_killed_after_the_host_got_it_is_finished(host: Machine) -> None:
    lose_the_record(host)
    converge(host, BOTH)
    host.unbind(NIC)
    host.drop(NIC)
    host.tree.file(host.tree.real(NIC) + "/driver_override", "(null)")
    host.bind(NIC, "e1000e")
    change = converge(host, NOTHING)
    assert drivers(host) == ["e1000e", "virtio-pci"]
    assert not any("somebody else" in message for message in change.messages)


def test_a_device_that_had_no_driver_is_left_without(host: Machine) -> None:
    host.unbind(NIC)
    converge(host, BOTH)
    converge(host, NOTHING)
    assert drivers(host) == [None, "virtio-pci"]


@pytest.mark.parametrize("record", [None, {}, {"vendor_device": "8086:10d3", "driver": 7, "interfaces": []}])
def test_a_damaged_record_costs_its_own_device_only(host: Machine, record: object) -> None:
    converge(host, BOTH)
    originals = json.loads(host.root.read_text(ORIGINALS))
    originals["devices"][NIC] = record
    host.tree.file(ORIGINALS, json.dumps(originals))
    with pytest.raises(Refused, match="The record of the original state of %s is damaged" % NIC):
        binding(host, BOTH)
    assert json.loads(host.root.read_text(ORIGINALS)) == originals, "nothing is lost by looking"
    change = converge(host, NOTHING)
    assert drivers(host) == ["e1000e", "virtio-pci"] and not host.root.exists(ORIGINALS)
    assert any("its record is damaged" in warning for warning in change.warnings)
