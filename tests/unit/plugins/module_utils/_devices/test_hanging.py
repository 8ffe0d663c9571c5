# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An unbind that does not return: a FIFO that nobody reads stands in for the kernel's attribute."""

from __future__ import annotations

import errno
import os
import time
from typing import Callable, Iterator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import HANGING, ORIGINALS
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import hanging
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.control import Kernel
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.steps import observe
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.writer import Writer
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
    # The process that hangs is real, and the host a tree.
    real, started = Root(), hanging._start_time
    monkeypatch.setattr(hanging, "_start_time", lambda _root, pid: started(real, pid))
    writer, fake = Writer(), machine.kernel.request_unbind

    def request_unbind(device: PciDevice, driver: str, holders: Callable[[], list[str]]) -> None:
        if device.address == NIC and driver == "e1000e":
            hanging.unbind(machine.root, writer, device.address, driver, holders)
        else:
            fake(device, driver, holders)

    monkeypatch.setattr(machine.kernel, "request_unbind", request_unbind)
    yield machine
    if machine.root.exists(UNBIND):
        os.close(os.open(machine.tree.at(UNBIND), os.O_RDONLY | os.O_NONBLOCK))  # what still hangs ends
    writer.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    error, writer = caught.value, (host.root.read_text(HANGING, NIC) or "").split()[0]
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
    wait_until(lambda: hanging.hanging(host.root, NIC) is None)
    converge(host, BOTH)
    assert [host.driver_of(address) for address in (NIC, OTHER)] == ["vfio-pci", "vfio-pci"]
    assert host.root.read_text(host.tree.real(NIC), "driver_override") == "vfio-pci"


def test_a_process_number_that_was_used_again_holds_nothing(host: Machine) -> None:
    start = hanging._start_time(host.root, str(os.getpid()))
    for when, holder in ((start, str(os.getpid())), ("1", None)):
        host.tree.file("%s/%s" % (HANGING, NIC), "%d %s\n" % (os.getpid(), when))
        assert hanging.hanging(host.root, NIC) == holder
    hanging.refuse_hanging(host.root, NIC)


def test_the_kernel_s_answer_is_told(host: Machine) -> None:
    host.tree.at(UNBIND).unlink()
    with pytest.raises(HostError, match=r"The kernel refused %s written to %s: .*\(ENOENT\)" % (NIC, UNBIND)) as caught:
        binding(host, BOTH).apply()
    assert caught.value.errno == errno.ENOENT and host.driver_of(OTHER) == "virtio-pci"


def test_one_that_only_takes_its_time_is_no_error(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "GIVE_UP_AFTER", 60.0)
    said: list[str] = []

    def log(_level: int, text: str) -> None:
        said.append(text)
        assert release(host) == NIC

    monkeypatch.setattr(hanging.syslog, "syslog", log)
    writer = Writer()
    hanging.unbind(host.root, writer, NIC, "e1000e", lambda: ["eth1 is held"])
    writer.close()
    assert len(said) == 1 and "%s is not unbound after" % NIC in said[0] and "eth1 is held" in said[0]
    assert not host.root.exists(HANGING)
