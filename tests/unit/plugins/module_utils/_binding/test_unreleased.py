# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A device that cannot be released keeps no other, and the host says so until it is."""

from __future__ import annotations

import json
import os
from typing import Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    BINDINGS,
    HANGING,
    ORIGINALS,
    PROGRAM,
    UNIT,
    VERIFY,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.fleet import host_record
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.verify import Verify
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import PARAMETERS, UNSAFE_INTERRUPTS, Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import NOTHING, binding, converge, use

NIC, OTHER = "0000:00:04.0", "0000:00:05.0"
BOTH = Request([{"address": NIC}, {"address": OTHER}], accept_unsafe=True)
ONE = Request([{"address": OTHER}], accept_unsafe=True)


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host with two NICs that are bound."""
    tree = machine.tree
    tree.pci(NIC, driver="e1000e")
    tree.pci(OTHER, "1af4:1041", driver="virtio-pci")
    tree.file("/proc/sys/kernel/tainted", "0")
    tree.file("/proc/sys/kernel/osrelease", os.uname().release)
    converge(machine, BOTH)
    return machine


def refuse_writes(host: Machine, monkeypatch: pytest.MonkeyPatch, path: str) -> Callable[[], None]:
    """Have the kernel refuse what is written to a file for the NIC; return what ends that."""
    real = host.root.write_sysfs
    is_refused = [True]

    def write(written: str, value: str) -> None:
        if is_refused and written.endswith(path) and NIC in written + value:
            raise HostError("kernel_write", "The kernel refused it: Input/output error (EIO).")
        real(written, value)

    monkeypatch.setattr(host.root, "write_sysfs", write)
    return is_refused.clear


def cannot_be_unbound(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return refuse_writes(host, monkeypatch, "/vfio-pci/unbind")


def stays_in_the_module(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return refuse_writes(host, monkeypatch, PARAMETERS + "/remove")


def keeps_its_override(host: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return refuse_writes(host, monkeypatch, "/driver_override")


def is_in_use(host: Machine, _monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    use(host, NIC)
    return lambda: host.tree.remove("/proc/4711")


def hangs(host: Machine, _monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """An earlier run gave up on it."""
    host.tree.file("/proc/7/stat", "7 (python3) " + " ".join(["0"] * 19 + ["4711"]))
    host.tree.file("%s/%s" % (HANGING, NIC), "7 4711\n")
    return lambda: host.tree.remove("/proc/7")


@pytest.mark.parametrize(
    "cause, reason",
    [
        (cannot_be_unbound, "EIO"),
        (stays_in_the_module, "EIO"),
        (keeps_its_override, "EIO"),
        (is_in_use, "process 4711"),
        (hangs, "still hangs"),
    ],
)
def test_it_keeps_no_other(host: Machine, monkeypatch: pytest.MonkeyPatch, cause, reason: str) -> None:
    end = cause(host, monkeypatch)
    change = binding(host, NOTHING)
    change.apply()
    assert [host.driver_of(address) for address in (NIC, OTHER)] == ["vfio-pci", "virtio-pci"]
    (kept,) = change.unreleased
    assert kept["address"] == NIC and reason in kept["reason"]
    assert any(text.startswith("%s was not released: " % NIC) for text in change.warnings)
    assert host.root.read_text(UNSAFE_INTERRUPTS) == "Y", "it needs what was set for it"

    # The host says so, and no boot binds anything.
    assert not host.root.exists(BINDINGS) and not host.root.exists(UNIT)
    assert host.root.exists(VERIFY) and host.root.exists(PROGRAM)
    record = Verify(host.root).record()
    assert (
        record["state"] == "drifted"
        and "%s was not released: " % NIC in record["reason"]
        and reason in record["reason"]
    )

    if cause in (is_in_use, hangs):  # these are foreseen
        assert binding(host, NOTHING).steps == [], "nothing is announced that will not be done"

    # So does the report, which asks the same in check mode.
    change = binding(host, NOTHING, check_mode=True)
    result = {"changed": change.changed, "steps": change.steps, "unreleased": change.unreleased}
    (drift,) = host_record("alpha", {"devices_result": result})["drift"]
    assert any(NIC in text for text in drift["changes"])

    end()
    change = converge(host, NOTHING)
    assert not change.unreleased and not change.warnings
    assert [host.driver_of(address) for address in (NIC, OTHER)] == ["e1000e", "virtio-pci"]
    assert host.root.read_text(host.tree.real(NIC), "driver_override") == "(null)"
    assert not host.root.exists(UNSAFE_INTERRUPTS), "its module is unloaded"
    assert not any(host.root.exists(path) for path in (ORIGINALS, VERIFY, PROGRAM))
    assert not binding(host, NOTHING).changed and Verify(host.root).record()["state"] == "ok"


@pytest.mark.parametrize("cause", [cannot_be_unbound, is_in_use, hangs])
def test_it_keeps_no_other_from_being_bound(host: Machine, monkeypatch: pytest.MonkeyPatch, cause) -> None:
    converge(host, Request([{"address": NIC}], accept_unsafe=True))
    cause(host, monkeypatch)
    change = converge(host, ONE)
    assert [host.driver_of(address) for address in (NIC, OTHER)] == ["vfio-pci", "vfio-pci"]
    assert [device["address"] for device in change.unreleased] == [NIC]
    assert [entry["address"] for entry in json.loads(host.root.read_text(BINDINGS))["devices"]] == [OTHER]
    assert "%s was not released" % NIC in Verify(host.root).record()["reason"]


def test_it_can_be_declared_again(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    end = is_in_use(host, monkeypatch)
    converge(host, NOTHING)
    end()
    change = converge(host, BOTH)
    assert not change.unreleased and "unreleased" not in json.loads(host.root.read_text(ORIGINALS))["devices"][NIC]
    assert [host.driver_of(address) for address in (NIC, OTHER)] == ["vfio-pci", "vfio-pci"]
    assert Verify(host.root).record()["state"] == "ok"


def test_after_a_boot_nothing_is_left_of_it(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    is_in_use(host, monkeypatch)
    converge(host, NOTHING)
    host.unbind(NIC)
    host.drop(NIC)
    host.tree.remove("/dev/vfio/by-address")
    host.tree.file(host.tree.real(NIC) + "/driver_override", "(null)")
    host.bind(NIC, "e1000e")
    assert Verify(host.root).record()["state"] == "ok"
    assert not converge(host, NOTHING).unreleased and not host.root.exists(ORIGINALS)


def test_a_declared_device_that_hangs_is_refused(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs(host, monkeypatch)
    with pytest.raises(Refused, match="still hangs"):
        binding(host, BOTH)
