# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Another device of the same kind in the same place: the record is renewed, and everybody is told."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS, ORIGINALS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import verify
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import NOTHING, binding, boot, converge
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC, DISK, PF = "0000:00:04.0", "0000:00:06.0", "0000:01:00.0"
OLD_MAC, NEW_MAC = "52:54:00:00:00:01", "52:54:00:00:00:99"
BY_ADDRESS = Request([{"address": NIC}], accept_unsafe=True)


def restart(host: Machine, address: str, driver: str) -> None:
    """Boot: the host's driver has the device again, and nothing of ours is loaded."""
    host.unbind(address)
    host.drop(address)
    host.tree.file(host.tree.real(address) + "/driver_override", "(null)")
    host.bind(address, driver)
    for module in ("noiommu", "vfio-pci", "vfio_iommu_type1"):
        host.unload(module)


@pytest.fixture
def host(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    return machine


@pytest.fixture
def nic(host: Machine) -> Machine:
    """A NIC was deployed, and after a boot another one is in its place."""
    host.tree.pci(NIC, driver="e1000e")
    host.tree.net("eth1", NIC, OLD_MAC)
    converge(host, BY_ADDRESS)
    restart(host, NIC, "e1000e")
    host.tree.file("/sys/class/net/eth1/address", NEW_MAC)
    host.tree.file("/sys/class/net/eth1/mtu", "9000")
    return host


def devices(host: Machine, path: str) -> list[dict]:
    found = json.loads(host.root.read_text(path))["devices"]
    return list(found.values()) if isinstance(found, dict) else found


def test_a_replaced_nic_is_bound_now_and_at_the_next_boot(nic: Machine) -> None:
    assert boot(nic)[0] == 1, "by itself, nobody's device is taken"
    predicted = binding(nic, BY_ADDRESS, check_mode=True)
    change = converge(nic, BY_ADDRESS)
    assert change.steps[0] == predicted.steps[0] == "renew the record of " + NIC
    (message,) = [message for message in change.warnings if NIC in message]
    assert "another MAC is there: %s" % NEW_MAC in message and "e1000e" in message and message in change.messages
    assert [record["interfaces"][0]["mac"] for record in devices(nic, ORIGINALS)] == [NEW_MAC]
    assert [entry["macs"] for entry in devices(nic, BINDINGS)] == [[NEW_MAC]]
    assert nic.root.listdir("/dev/vfio/by-mac") == [NEW_MAC]
    assert not binding(nic, BY_ADDRESS).changed
    restart(nic, NIC, "e1000e")
    assert boot(nic)[0] == 0 and nic.driver_of(NIC) == "vfio-pci"
    for mac, found in ((NEW_MAC, True), (OLD_MAC, False)):
        request = Request([{"mac": mac}], accept_unsafe=True)
        if found:
            assert not binding(nic, request).changed
        else:
            with pytest.raises(Refused, match="No PCI device on this host has the MAC"):
                binding(nic, request)


def test_the_driver_to_go_back_to_stays(nic: Machine) -> None:
    nic.unbind(NIC)
    nic.tree.file(nic.tree.real(NIC) + "/driver_override", "other")
    nic.bind(NIC, "other")
    converge(nic, BY_ADDRESS)
    (record,) = devices(nic, ORIGINALS)
    assert (record["driver"], record["driver_override"], record["interfaces"][0]["mtu"]) == ("e1000e", None, 9000)


def test_verify_names_it(nic: Machine) -> None:
    nic.tree.file("/proc/sys/kernel/osrelease", "6.1.0")
    nic.tree.file("/proc/sys/kernel/tainted", "0")
    said = verify.line(verify.Verify(nic.root).record())
    assert "%s: another MAC is there: %s: deploy again, or no boot binds it" % (NIC, NEW_MAC) in said


def test_an_address_that_the_driver_makes_up_is_no_other_device(nic: Machine) -> None:
    nic.tree.file("/sys/class/net/eth1/addr_assign_type", "1")
    assert not converge(nic, BY_ADDRESS).warnings
    assert [record["interfaces"][0]["mac"] for record in devices(nic, ORIGINALS)] == [OLD_MAC]


def test_a_replaced_disk(host: Machine) -> None:
    host.tree.pci(DISK, "144d:a808", "010802", driver="nvme")
    host.tree.file(host.tree.real(DISK) + "/nvme/nvme0/serial", "S0")
    request = Request([{"address": DISK}], accept_unsafe=True, backend="dkms")
    converge(host, request)
    restart(host, DISK, "nvme")
    host.tree.file(host.tree.real(DISK) + "/nvme/nvme0/serial", "S7")
    with pytest.raises(Refused, match="serial S0 was bound by an earlier run, but it has disappeared"):
        binding(host, Request([{"serial": "S0"}], accept_unsafe=True, backend="dkms"))
    assert "another serial number is there: S7" in converge(host, request).warnings[0]
    assert [entry["serials"] for entry in devices(host, BINDINGS)] == [["S7"]]
    restart(host, DISK, "nvme")
    assert boot(host)[0] == 0 and host.driver_of(DISK) == "vfio-pci"
    converge(host, NOTHING)
    assert host.driver_of(DISK) == "nvme"


def test_a_replaced_physical_function_and_its_virtual_ones(host: Machine) -> None:
    host.tree.pci(PF, "8086:10c9", driver="igb")
    host.tree.net("pf0", PF, OLD_MAC)
    host.tree.sriov(PF)
    request = Request([{"pf": PF, "vf": ["0-1"]}], accept_unsafe=True, sriov=[{"pf": PF, "vfs": 2}])
    converge(host, request)
    host.functions(PF, 0)
    host.tree.file("/sys/class/net/pf0/address", NEW_MAC)
    assert boot(host)[0] == 3
    change = converge(host, request)
    assert len(change.warnings) == 3 and all(NEW_MAC in message for message in change.warnings)
    assert [entry["vf"]["macs"] for entry in devices(host, BINDINGS)] == [[NEW_MAC], [NEW_MAC]]
    assert json.loads(host.root.read_text(ORIGINALS))["sriov"][PF]["macs"] == [NEW_MAC]
    assert not binding(host, request).changed
    host.functions(PF, 0)
    failed, lines = boot(host)
    assert failed == 0 and host.driver_of(Tree.vf_address(PF, 0)) == "vfio-pci", lines
    converge(host, NOTHING)
    assert host.root.read_int(host.tree.real(PF), "sriov_numvfs") == 0 and not host.root.exists(ORIGINALS)
