# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host begins to use between the decision and the unbind."""

from __future__ import annotations

from typing import Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import recheck
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.originals import Originals
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciDevice
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import Guard, GuardContext
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import binding, boot, converge

DISK, NIC = "0000:00:04.0", "0000:00:05.0"
BOTH = Request([{"address": DISK}, {"address": NIC}], accept_unsafe=True)


@pytest.fixture
def host(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(recheck, "_FRESH", 0.0)
    machine.tree.pci(DISK, "1af4:1042", "010000", driver="virtio-pci")
    machine.tree.block("vda", machine.tree.real(DISK) + "/virtio1", "254:0")
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.net("eth1", NIC, "52:54:00:00:00:11")
    return machine


def mount(host: Machine) -> None:
    host.tree.mounts(("254:0", "/srv", "/dev/vda"))


def stack(host: Machine) -> None:
    host.tree.net("br0")
    host.tree.stack("br0", "eth1", master=True)


def open_node(host: Machine) -> None:
    host.tree.dir(host.tree.real(NIC) + "/uio/uio0")
    host.tree.file("/dev/uio0")
    host.tree.file("/proc/815/comm", "testpmd")
    host.tree.dir("/proc/815/fd")
    if not host.root.exists("/proc/815/fd/9"):
        host.tree.at("/proc/815/fd/9").symlink_to("/dev/uio0")


USES = pytest.mark.parametrize(
    "use, device, message", [(mount, DISK, "mounted"), (stack, NIC, "on top"), (open_node, NIC, "815")]
)


def drivers(host: Machine) -> list[str | None]:
    return [host.driver_of(address) for address in (DISK, NIC)]


@USES
def test_a_device_that_is_used_since_the_decision_is_not_unbound(
    host: Machine, use: Callable[[Machine], None], device: str, message: str
) -> None:
    change = binding(host, BOTH)
    use(host)
    with pytest.raises(Refused, match=message) as caught:
        change.apply()
    assert "/sys/bus/pci/drivers/%s/unbind <- %s" % (host.driver_of(device), device) not in host.requests
    assert drivers(host) == ["virtio-pci", "e1000e"] and not host.root.exists("/etc/noiommu/bindings.json")
    assert any("put back" in line for line in caught.value.evidence)


@USES
def test_nor_while_others_are_unbound(
    host: Machine, monkeypatch: pytest.MonkeyPatch, use: Callable[[Machine], None], device: str, message: str
) -> None:
    unbind = host.unbind

    def use_then(address: str) -> None:
        unbind(address)
        if address != device:
            use(host)

    request = Request([{"address": NIC}, {"address": DISK}], accept_unsafe=True)
    change = binding(host, request)
    order = change._plan.bindings
    order.sort(key=lambda move: move.device.address == device)
    monkeypatch.setattr(host, "unbind", use_then)
    with pytest.raises(Refused, match=message):
        change.apply()
    assert drivers(host) == ["virtio-pci", "e1000e"]


@USES
def test_the_boot_asks_again_too(
    host: Machine, monkeypatch: pytest.MonkeyPatch, use: Callable[[Machine], None], device: str, message: str
) -> None:
    converge(host, BOTH)
    for address, driver in ((DISK, "virtio-pci"), (NIC, "e1000e")):
        host.unbind(address)
        host.drop(address)
        host.tree.file(host.tree.real(address) + "/driver_override", "(null)")
        host.tree.bind(address, driver)
    for _name, path, parked in host._parked.pop(NIC, []):
        host.tree.at(path).parent.mkdir(parents=True)
        parked.rename(host.tree.at(path))
        host.tree.link("/sys/class/net/eth1", path)
    real = recheck.Recheck.__call__

    def late(self: recheck.Recheck, which: object) -> None:
        use(host)
        real(self, which)

    monkeypatch.setattr(recheck.Recheck, "__call__", late)
    failed, lines = boot(host)
    assert failed >= 1 and host.driver_of(device) != "vfio-pci" and message in "".join(lines)


def test_what_took_long_to_read_is_shared_all_the_same(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fresh from when it was read: on a slow host each device would read everything anew."""
    now = 100.0
    readings: list[GuardContext] = []

    def slow(context: GuardContext, *_more: object) -> list[Guard]:
        nonlocal now
        if context not in readings:
            readings.append(context)
            now += 5.0
        return []

    monkeypatch.setattr(recheck, "_FRESH", 0.2)
    monkeypatch.setattr(recheck, "check", slow)
    monkeypatch.setattr(recheck.time, "monotonic", lambda: now)
    ask = recheck.Recheck(host.kernel, GuardContext(host.root), Originals())
    for address in (DISK, NIC, DISK):
        ask(PciDevice(host.root, address))
    assert len(readings) == 1
    now += 0.3
    ask(PciDevice(host.root, NIC))
    assert len(readings) == 2
