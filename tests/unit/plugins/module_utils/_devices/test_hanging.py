# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An unbind that does not return: a FIFO that nobody reads stands in for the kernel's attribute."""

from __future__ import annotations

import os
import subprocess
from typing import Callable, Iterator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import HANGING, ORIGINALS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import hanging
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.control import Kernel
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.steps import observe
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciDevice
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import binding, converge

NIC, OTHER = "0000:00:04.0", "0000:00:05.0"
UNBIND = "/sys/bus/pci/drivers/e1000e/unbind"
BOTH = Request([{"address": NIC}, {"address": OTHER}], accept_unsafe=True)


@pytest.fixture
def host(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A host whose NIC is held by something, with what the kernel writes to its log then."""
    monkeypatch.setattr(hanging, "SAY_AFTER", 0.1)
    monkeypatch.setattr(hanging, "GIVE_UP_AFTER", 0.5)
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.net("eth1", NIC, "52:54:00:00:00:11")
    machine.tree.pci(OTHER, "1af4:1041", driver="virtio-pci")
    os.mkfifo(machine.tree.at(UNBIND))
    monkeypatch.setattr(
        machine.kernel,
        "log_lines",
        lambda needle: ["dmesg: unregister_netdevice: %s…" % needle] if "eth1" in needle else [],
    )
    start, fake = hanging._start, machine.kernel.request_unbind

    writers: list[subprocess.Popen[bytes]] = []

    def visible(real: str, value: str) -> subprocess.Popen[bytes]:
        writer = start(real, value)
        writers.append(writer)
        machine.tree.file("/proc/%d/cmdline" % writer.pid, "\0".join(writer.args).encode() + b"\0")
        return writer

    monkeypatch.setattr(hanging, "_start", visible)

    def request_unbind(device: PciDevice, driver: str, holders: Callable[[], list[str]]) -> None:
        if device.address == NIC and driver == "e1000e":
            hanging.unbind(machine.root, device.address, driver, holders)
        else:
            fake(device, driver, holders)

    monkeypatch.setattr(machine.kernel, "request_unbind", request_unbind)
    yield machine
    for writer in writers:
        writer.kill()
        writer.wait()


def release(host: Machine) -> str:
    """End the hold, and return the request that the kernel gets then."""
    handle = os.open(host.tree.at(UNBIND), os.O_RDONLY)
    try:
        return os.read(handle, 100).decode()
    finally:
        os.close(handle)


def test_it_ends_with_the_holder_and_the_next_run_finishes_it(host: Machine) -> None:
    with pytest.raises(HostError) as caught:
        binding(host, BOTH).apply()
    error, writer = caught.value, host.root.read_text(HANGING, NIC) or ""
    assert error.code == "unbind_hangs" and "did not return within" in error.message
    assert any("waiting for eth1" in line for line in error.evidence)
    assert any("process %s waits" % writer in line for line in error.evidence)
    assert host.driver_of(OTHER) == "virtio-pci", "the others are rolled back"
    assert host.root.exists(ORIGINALS), "the next run needs it"

    host.requests.clear()
    with pytest.raises(Refused, match="still hangs") as refused:
        binding(host, BOTH)
    assert [refusal.code for refusal in refused.value.refusals] == ["unbind_hangs"] and host.requests == []
    device = PciDevice(host.root, NIC)
    assert observe(host.root, device).driver_override is None
    for request in (host.kernel.unbind, lambda device: Kernel.override(host.kernel, device, "vfio-pci")):
        with pytest.raises(HostError, match="still hangs"):
            request(device)

    assert release(host) == NIC
    host.unbind(NIC)
    host.tree.remove("/proc/" + writer)
    converge(host, BOTH)
    assert [host.driver_of(address) for address in (NIC, OTHER)] == ["vfio-pci", "vfio-pci"]
    assert host.root.read_text(host.tree.real(NIC), "driver_override") == "vfio-pci"


def test_a_process_number_that_was_used_again_holds_nothing(host: Machine) -> None:
    host.tree.file("%s/%s" % (HANGING, NIC), str(os.getpid()))
    host.tree.file("/proc/%d/cmdline" % os.getpid(), b"pytest\0x\0")
    assert hanging.hanging(host.root, NIC) is None
    hanging.refuse_hanging(host.root, NIC)


def test_one_that_only_takes_its_time_is_no_error(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "GIVE_UP_AFTER", 60.0)
    slept = hanging.time.sleep
    said: list[str] = []
    monkeypatch.setattr(hanging.syslog, "syslog", lambda _level, text: said.append(text))

    released: list[str] = []

    def sleep(seconds: float) -> None:
        slept(seconds)
        # Once: opened again after its writer is done, the FIFO would block for good.
        if said and not released:
            released.append(release(host))

    monkeypatch.setattr(hanging.time, "sleep", sleep)
    hanging.unbind(host.root, NIC, "e1000e", lambda: ["eth1 is held"])
    assert released == [NIC]
    assert len(said) == 1 and "%s is not unbound after" % NIC in said[0] and "eth1 is held" in said[0]
    assert not host.root.exists(HANGING)
