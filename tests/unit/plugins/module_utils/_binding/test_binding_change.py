# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binding as a transaction, against a kernel that reacts: converges, repeats to nothing, and takes everything back."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.data_nics import (
    BOTH,
    DISK,
    NIC,
    VIRTIO,
    state,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import (
    UNSAFE_INTERRUPTS,
    Machine,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    converge,
)


def test_dkms_binds_and_remembers(host: Machine) -> None:
    change = converge(host, BOTH)
    for address in (NIC, VIRTIO):
        device = state(change)[address]
        assert (device["driver"], device["driver_override"], device["safety"]) == ("vfio-pci", "vfio-pci", "unsafe")
        assert host.root.exists("/dev/vfio/%d" % device["iommu_group"])
    assert host.root.read_text(UNSAFE_INTERRUPTS) == "Y"
    assert host.driver_of(DISK) == "virtio-pci"
    originals = json.loads(host.root.read_text("/var/lib/noiommu/originals.json"))
    assert originals["devices"][NIC] == {
        "vendor_device": "8086:10d3",
        "driver": "e1000e",
        "driver_override": None,
        "interfaces": [{"name": "eth1", "mac": "52:54:00:00:00:11", "up": True, "mtu": 1500}],
    }
    bindings = json.loads(host.root.read_text("/etc/noiommu/bindings.json"))
    assert [entry["macs"] for entry in bindings["devices"]] == [["52:54:00:00:00:11"], ["52:54:00:00:00:12"]]
    assert bindings["backend"] == "dkms"
    assert (
        "options vfio_iommu_type1 allow_unsafe_interrupts=1\n"
        in host.tree.at("/etc/modprobe.d/noiommu.conf").read_text()
    )
    assert host.root.link_name("/etc/systemd/system/multi-user.target.wants/noiommu-bindings.service")
    assert "systemctl daemon-reload" in host.requests


def test_originals_are_written_before_anything_is_touched(host: Machine) -> None:
    converge(host, BOTH)
    assert host.requests[0] == "write /var/lib/noiommu/originals.json"


@pytest.mark.parametrize(
    "selectors",
    [
        [{"address": NIC}, {"address": VIRTIO}],
        [{"interface": "eth1"}, {"interface": "eth2"}],
        [{"mac": "52:54:00:00:00:11"}, {"mac": "52:54:00:00:00:12"}],
        [{"vendor_device": "8086:10d3"}, {"vendor_device": "1af4:1041"}],
    ],
)
def test_the_second_run_asks_nothing_of_the_kernel(host: Machine, selectors: list[dict]) -> None:
    request = Request(selectors, accept_unsafe=True)
    converge(host, request)
    host.requests.clear()
    again = binding(host, request)
    assert not again.changed and not again.steps
    assert again.before() == again.after()
    assert host.requests == []


def test_check_mode_predicts_and_touches_nothing(host: Machine) -> None:
    content = host.tree.content()
    predicted = binding(host, BOTH, check_mode=True)
    assert predicted.changed
    assert host.requests == [] and host.tree.content() == content
    steps, after = predicted.steps, predicted.after()
    change = converge(host, BOTH)
    real = change.after()
    for guess, fact in zip(after["devices"], real["devices"]):
        assert dict(guess, iommu_group=None) == dict(fact, iommu_group=None)
    assert "%s: unbind from e1000e" % NIC in steps
    diff = predicted.diff()
    assert "driver: e1000e" in diff[0]["before"] and "driver: vfio-pci" in diff[0]["after"]
    assert any("bindings.json" in part["after_header"] for part in diff)


def test_the_diff_of_releasing_everything_is_short(host: Machine) -> None:
    converge(host, BOTH)
    devices, files = binding(host, NOTHING, check_mode=True).diff()
    assert [text.count("\n") for text in (devices["before"], devices["after"])] == [2, 2], "a line for each device"
    assert "%s: {driver: vfio-pci, driver_override: vfio-pci, iommu_group: 0" % NIC in devices["before"]
    assert "/usr/local/sbin/noiommu-verify" in files["before"].splitlines() and files["after"] == ""
    assert all(line.startswith("/") for line in files["before"].splitlines()), "names, and no content"


def test_a_diff_says_of_a_group_that_the_kernel_numbers_it_later(host: Machine) -> None:
    after = binding(host, BOTH).diff()[0]["after"]
    assert after.count("iommu_group: assigned at bind") == 2 and "iommu_group: none" not in after
    converge(host, BOTH)
    diff = binding(host, Request([{"address": NIC}], accept_unsafe=True)).diff()[0]
    assert "iommu_group: 0" in diff["before"] and "iommu_group: 0" in diff["after"], "what is known is shown"
    assert "iommu_group: none" in diff["after"], "a device that is released has none"
    assert "assigned at bind" not in diff["after"]


def test_without_persistence_no_file_but_the_record(host: Machine) -> None:
    converge(host, BOTH._replace(persistent=False))
    assert not host.root.exists("/etc/noiommu") and not host.root.exists("/etc/modprobe.d/noiommu.conf")
    assert host.root.exists("/var/lib/noiommu/originals.json")


def test_resolved_devices_name_their_character_device(host: Machine) -> None:
    change = converge(host, BOTH)
    found = change.resolved(change.after())
    assert [device["original_driver"] for device in found] == ["e1000e", "virtio-pci"]
    assert all(host.root.exists(device["chardev"]) for device in found)
    assert found[1]["interfaces"] == ["eth2"] and found[1]["backend"] == "dkms"


def test_absent_leaves_the_host_as_it_was(host: Machine) -> None:
    content = host.tree.content()
    converge(host, BOTH)
    converge(host, NOTHING)
    assert host.tree.content() == content
    assert not binding(host, NOTHING).changed


def test_absent_restores_a_parameter_somebody_had_set(host: Machine) -> None:
    host.load("vfio_iommu_type1")
    converge(host, BOTH)
    assert host.root.read_text(UNSAFE_INTERRUPTS) == "Y"
    converge(host, NOTHING)
    assert host.root.read_text(UNSAFE_INTERRUPTS) == "N"


def test_absent_says_what_only_a_reboot_clears(host: Machine) -> None:
    converge(host, BOTH)
    host.tree.file("/proc/sys/kernel/tainted", "12352")
    change = converge(host, NOTHING)
    assert any("12352" in message and "rebooted" in message for message in change.messages)


def test_absent_keeps_a_module_that_somebody_else_uses(host: Machine) -> None:
    converge(host, BOTH)
    host.tree.pci("0000:00:09.0")
    host.add("0000:00:09.0")
    change = converge(host, NOTHING)
    assert any("module noiommu stays loaded" in message for message in change.messages)
    assert host.driver_of(NIC) == "e1000e"


def test_another_kernel_has_not_all_of_the_modules(host: Machine) -> None:
    """vfio_virqfd is a module of Linux 6.1, and a part of vfio in later ones."""
    converge(host, BOTH)
    host.tree.remove("/sys/module/vfio_virqfd")
    modules = ("vfio-pci", "vfio_iommu_type1", "noiommu")
    index = "\n".join("kernel/drivers/%s.ko.xz:" % name for name in modules)
    host.tree.file("/lib/modules/%s/modules.dep" % os.uname().release, index)
    again = binding(host, BOTH)
    assert not again.changed and again.steps == []
    converge(host, NOTHING)
    assert not host.tree.root.exists("/var/lib/noiommu/originals.json")


def test_a_delisted_device_is_given_back(host: Machine) -> None:
    converge(host, BOTH)
    converge(host, Request([{"address": VIRTIO}], accept_unsafe=True))
    assert (host.driver_of(NIC), host.driver_of(VIRTIO)) == ("e1000e", "vfio-pci")
    assert host.root.read_text("/sys/class/net/eth1/flags") == "0x1003"  # up, as before
    assert NIC not in json.loads(host.root.read_text("/var/lib/noiommu/originals.json"))["devices"]


def test_a_device_somebody_gave_to_another_driver_stays_there(host: Machine) -> None:
    converge(host, BOTH)
    host.unbind(NIC)
    host.drop(NIC)
    host.tree.file(host.tree.real(NIC) + "/driver_override", "uio_pci_generic")
    host.bind(NIC, "uio_pci_generic")
    host.tree.file(host.tree.real(NIC) + "/driver_override", "(null)")
    change = converge(host, NOTHING)
    assert host.driver_of(NIC) == "uio_pci_generic"
    assert any("stays there" in message for message in change.messages)


def test_a_recorded_device_that_is_gone_is_forgotten_when_delisted(host: Machine) -> None:
    converge(host, BOTH)
    host.tree.remove("/sys/bus/pci/devices/" + NIC)
    change = converge(host, Request([{"address": VIRTIO}], accept_unsafe=True))
    assert any(NIC in message and "gone" in message for message in change.messages)


def test_a_recorded_device_that_is_gone_is_an_error_when_listed(host: Machine) -> None:
    converge(host, BOTH)
    host.tree.remove("/sys/bus/pci/devices/" + NIC)
    with pytest.raises(Refused, match="disappeared"):
        binding(host, BOTH)


def test_names_follow_the_groups(host: Machine) -> None:
    change = converge(host, BOTH)
    found = {device["address"]: device for device in change.resolved(change.after())}
    for address, mac in ((NIC, "52:54:00:00:00:11"), (VIRTIO, "52:54:00:00:00:12")):
        names = ["/dev/vfio/by-address/" + address, "/dev/vfio/by-mac/" + mac]
        assert found[address]["names"] == names
        assert {host.root.realpath(name) for name in names} == {found[address]["chardev"]}
    host.tree.remove("/dev/vfio/by-mac/52:54:00:00:00:11")
    host.tree.link("/dev/vfio/by-address/" + VIRTIO, "/dev/vfio/77")
    host.tree.link("/dev/vfio/by-mac/02:00:00:00:00:99", "/dev/vfio/77")
    again = binding(host, BOTH)
    assert again.changed and again.steps == [
        "set the name /dev/vfio/by-address/" + VIRTIO,
        "remove the name /dev/vfio/by-mac/02:00:00:00:00:99",
        "set the name /dev/vfio/by-mac/52:54:00:00:00:11",
    ]
    again.apply()
    assert not binding(host, BOTH).changed


def test_a_name_that_two_devices_would_have_is_not_made(host: Machine) -> None:
    host.tree.file("/sys/class/net/eth2/address", "52:54:00:00:00:11")
    converge(host, BOTH)
    assert host.root.listdir("/dev/vfio/by-mac") == []
    assert host.root.listdir("/dev/vfio/by-address") == [NIC, VIRTIO]


def test_another_device_in_a_recorded_slot_gets_a_record_of_its_own(host: Machine) -> None:
    converge(host, BOTH)
    host.unbind(NIC)
    host.drop(NIC)
    host.tree.file(host.tree.real(NIC) + "/driver_override", "(null)")
    host.tree.file(host.tree.real(NIC) + "/device", "0x1533")
    host.tree.bind(NIC, "igb")
    converge(host, BOTH)
    record = json.loads(host.root.read_text("/var/lib/noiommu/originals.json"))["devices"][NIC]
    assert (record["vendor_device"], record["driver"]) == ("8086:1533", "igb")
    converge(host, NOTHING)
    assert host.driver_of(NIC) == "igb"
