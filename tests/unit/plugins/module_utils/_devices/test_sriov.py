# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual functions as part of the transaction: predicted, made, bound, remembered, and taken back."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.sriov import predict
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState, Route
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciBus, PciDevice
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    boot,
    converge,
    fails_everywhere,
    killed_everywhere,
    transitions,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.virtual_functions import (
    AUTOPROBE,
    MAC,
    NUMBER,
    PF,
    THREE_OF_FOUR,
    VFS,
    number,
    want,
)


@pytest.fixture
def down(host: Machine) -> Machine:
    """The same, and the interface is down, as it is when the boot unit runs."""
    host.tree.file("/sys/class/net/pf0/flags", "0x1002")
    host.needs_link.add(PF)
    return host


def test_they_are_made_quietly_and_bound(host: Machine) -> None:
    one = converge(host, THREE_OF_FOUR)
    assert number(host) == 4 and host.root.read_text(AUTOPROBE) == "1"
    assert [host.driver_of(address) for address in VFS[:4]] == ["vfio-pci"] * 3 + ["igbvf"]
    found = one.resolved(one.after())
    assert [device["address"] for device in found] == VFS[:3]
    assert "/dev/vfio/by-mac/%s-vf2" % MAC in found[2]["names"]
    assert host.root.realpath("/dev/vfio/by-mac/%s-vf2" % MAC) == found[2]["chardev"]
    # None of the taken ones ever had an interface.
    assert not any("link up" in request or "igbvf/unbind" in request for request in host.requests)


def test_check_mode_predicts_what_does_not_exist_yet(host: Machine) -> None:
    content = host.tree.content()
    predicted = binding(host, THREE_OF_FOUR, check_mode=True)
    steps, after, diff = predicted.steps, predicted.after(), predicted.diff()
    assert host.requests == [] and host.tree.content() == content
    assert any("3 virtual functions do not exist yet" in message for message in predicted.messages)
    real = binding(host, THREE_OF_FOUR)
    assert real.steps == steps and real.changed
    real.apply()
    fact = real.after()
    assert [dict(one, iommu_group=None) for one in after["devices"]] == [
        dict(one, iommu_group=None) for one in fact["devices"]
    ]
    assert after["sriov"] == fact["sriov"] == [{"pf": PF, "vfs": 4}]
    bindings = [part for part in diff if part["after_header"].startswith("/etc/noiommu/bindings.json")]
    assert bindings[0]["after"] == host.tree.at("/etc/noiommu/bindings.json").read_text()


def test_where_the_addresses_cannot_be_known_the_real_run_finds_them(host: Machine) -> None:
    host.tree.file("/sys/bus/pci/devices/%s/sriov_offset" % PF, "0")
    predicted = binding(host, THREE_OF_FOUR, check_mode=True)
    assert [device.address for device in predicted.devices] == ["%s-vf%d" % (PF, index) for index in range(3)]
    one = binding(host, THREE_OF_FOUR)
    one.apply()
    assert [device.address for device in one.devices] == VFS[:3]
    assert set(json.loads(host.root.read_text("/var/lib/noiommu/originals.json"))["devices"]) == set(VFS[:3])
    assert not binding(host, THREE_OF_FOUR).changed


def test_predicted_addresses_carry_over_to_the_next_bus(host: Machine) -> None:
    pf = PciBus(host.root).get(PF)
    host.tree.file("/sys/bus/pci/devices/%s/sriov_offset" % PF, "384")
    assert [one.address for one in predict(host.root, pf, 2).values()] == ["0000:02:10.0", "0000:02:10.2"]


def test_absent_leaves_none(host: Machine) -> None:
    content = host.tree.content()
    converge(host, THREE_OF_FOUR)
    predicted = binding(host, NOTHING, check_mode=True).after()
    one = converge(host, NOTHING)
    assert one.after() == predicted
    assert host.tree.content() == content


def test_absent_gives_back_the_number_there_was(host: Machine) -> None:
    host.tree.file(NUMBER, "0")
    host.functions(PF, 2)
    content = host.tree.content()
    converge(host, want(5, "0-4"))
    assert number(host) == 5 and host.driver_of(VFS[4]) == "vfio-pci"
    converge(host, NOTHING)
    assert host.tree.content() == content and host.driver_of(VFS[0]) == "igbvf"


def test_for_the_host_itself_drivers_may_have_them(host: Machine) -> None:
    one = converge(host, want(2))
    assert one.backend is None and [host.driver_of(address) for address in VFS[:2]] == ["igbvf"] * 2
    assert "%s <- 0" % AUTOPROBE not in host.requests
    assert host.root.exists("/etc/noiommu/bindings.json")


def test_delisting_the_devices_keeps_the_number(host: Machine) -> None:
    converge(host, THREE_OF_FOUR)
    converge(host, want(4))
    assert number(host) == 4 and host.driver_of(VFS[0]) is None


def is_up(host: Machine) -> bool:
    return host.root.read_text("/sys/class/net/pf0/flags") == "0x1003"


def test_the_physical_functions_interface_is_set_up_first(down: Machine) -> None:
    content = down.tree.content()
    assert "%s: set pf0 up" % PF in binding(down, THREE_OF_FOUR).steps
    converge(down, THREE_OF_FOUR)
    assert number(down) == 4 and is_up(down)
    assert not binding(down, THREE_OF_FOUR).changed
    converge(down, NOTHING)
    assert down.tree.content() == content and not is_up(down)


def test_and_at_boot(down: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    converge(down, THREE_OF_FOUR)
    down.functions(PF, 0)
    down.tree.file("/sys/class/net/pf0/flags", "0x1002")
    failed, lines = boot(down)
    assert failed == 0 and number(down) == 4 and is_up(down), lines


def test_one_whose_interface_does_not_come_up_keeps_nothing_else_from_the_boot(
    down: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    nic = "0000:00:0a.0"
    down.tree.pci(nic, "1af4:1041", driver="virtio-pci")
    converge(down, THREE_OF_FOUR._replace(devices=[*THREE_OF_FOUR.devices, {"address": nic}]))
    down.functions(PF, 0)
    down.unbind(nic)
    down.tree.file("/sys/class/net/pf0/flags", "0x1002")

    def link_up(name: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(down.kernel, "link_up", link_up)
    failed, lines = boot(down)
    assert failed and down.driver_of(nic) == "vfio-pci" and number(down) == 0, lines
    assert any("%s: no virtual functions: " % PF in line and "Input/output error" in line for line in lines)


def test_a_signal_ends_a_boot_that_makes_virtual_functions(down: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0)
    converge(down, THREE_OF_FOUR)
    down.functions(PF, 0)
    real = down.kernel.set_functions

    def interrupted(pf: PciDevice, count: int) -> None:
        real(pf, count)
        if count:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(down.kernel, "set_functions", interrupted)
    with pytest.raises(HostError, match="ended this run") as caught:
        boot(down)
    assert caught.value.code == "interrupted" and number(down) == 0


def test_what_the_host_began_to_use_stays_up(down: Machine) -> None:
    converge(down, THREE_OF_FOUR)
    index = down.root.read_int("/sys/class/net/pf0/ifindex")
    net = NetState([], [Route("inet", "main", "default", "192.0.2.1", (index,), False)])
    binding(down, NOTHING, net=net).apply()
    assert number(down) == 0 and is_up(down)


def test_one_that_was_up_stays_up(host: Machine) -> None:
    converge(host, THREE_OF_FOUR)
    converge(host, NOTHING)
    assert is_up(host) and "link down pf0" not in host.requests


def test_a_run_that_fails_sets_it_down_again(down: Machine) -> None:
    down.broken.add("sriov")
    with pytest.raises(HostError):
        binding(down, THREE_OF_FOUR).apply()
    assert not is_up(down)


TRANSITIONS = transitions(
    {
        "make": ([], THREE_OF_FOUR),
        "make more": ([THREE_OF_FOUR], want(6, "0-5")),
        "make fewer": ([THREE_OF_FOUR], want(2, "0-1")),
        "absent": ([THREE_OF_FOUR], NOTHING),
    }
)


def state(host: Machine) -> tuple:
    """Everything but for what virtual functions get anew when they are made anew: their groups and interfaces."""
    drivers = {one: host.driver_of(one) for one in host.root.listdir("/sys/bus/pci/devices")}
    return (
        drivers,
        host.root.read_text(AUTOPROBE),
        host.tree.content("/etc"),
        host.tree.content("/var"),
        len(host.tree.content("/dev/vfio")),
    )


@TRANSITIONS
def test_a_failure_anywhere_puts_everything_back(host: Machine, before: list[Request], wanted: Request) -> None:
    fails_everywhere(host, before, wanted, state)


@TRANSITIONS
def test_a_run_killed_anywhere_is_finished_or_taken_back(
    host: Machine, before: list[Request], wanted: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_everywhere(host, before, wanted, monkeypatch)


def test_a_number_that_the_driver_does_not_make_is_an_error(host: Machine) -> None:
    host.broken.add("sriov")
    with pytest.raises(HostError, match="did not set the number of virtual functions to 4") as caught:
        binding(host, THREE_OF_FOUR).apply()
    assert any("ENOMEM" in line or "Cannot allocate" in line for line in caught.value.evidence)
    assert number(host) == 0
