# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What noiommu-verify finds of devices: BARs that are not write-combined, and what SPDK's setup.sh leaves."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS, ORIGINALS, WRITE_COMBINING
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import verify
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import converge

ENA, DISK, OTHER = "0000:00:05.0", "0000:00:06.0", "0000:00:07.0"
START = 0xFE000000 + 2 * 0x100000
MEMTYPES = "/sys/kernel/debug/x86/pat_memtype_list"


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A deployed host with an ENA and an NVMe disk, and another disk that is the kernel's."""
    tree = machine.tree
    tree.file("/proc/cpuinfo", "flags\t\t: fpu pat")
    tree.pci(ENA, "1d0f:ec20", driver="ena")
    tree.bars(ENA, {0: (1 << 14, "mem"), 2: (1 << 20, "pref")})
    tree.capabilities(ENA)
    for disk in (DISK, OTHER):
        tree.pci(disk, "144d:a808", "010802", driver="nvme")
    entries = [{"address": ENA, "write_combining": ["2"]}, {"address": DISK}]
    converge(machine, Request(entries, accept_unsafe=True))
    tree.file("/proc/sys/kernel/tainted", "12352")
    tree.file("/proc/sys/kernel/osrelease", os.uname().release)
    return machine


def look(host: Machine) -> dict[str, Any]:
    return verify.Verify(host.root).record()


def found(host: Machine) -> list[str]:
    return [line for one in look(host)["drift"] for line in one["changes"]]


def override(host: Machine, address: str, driver: str) -> None:
    host.tree.file(host.tree.real(address) + "/driver_override", driver)


def test_as_deployed_it_says_which_bars_are_write_combined(host: Machine) -> None:
    record = look(host)
    assert record["state"] == "ok", record["reason"]
    assert {one["address"]: one["write_combining"] for one in record["devices"]} == {ENA: [2], DISK: []}


def test_a_bar_that_is_not_write_combined(host: Machine) -> None:
    host.tree.file(WRITE_COMBINING, "%s 2 off" % ENA)
    assert found(host) == ["%s: BAR 2 is not write-combined" % ENA]
    host.tree.file(WRITE_COMBINING)
    assert found(host) == ["%s: BAR 2 is not write-combined" % ENA]


def test_a_bar_that_nobody_declared(host: Machine) -> None:
    host.tree.file(WRITE_COMBINING, "%s 2 on\n%s 4 on" % (ENA, ENA))
    assert found(host) == ["%s: BAR 4 is write-combined, which is not declared" % ENA]


def test_the_kernel_s_own_list_is_asked_where_there_is_one(host: Machine) -> None:
    line = "PAT: [mem 0x%016x-0x%016x] %s"
    whole = line % (START, START + (1 << 20), "write-combining")
    beside = line % (START + (1 << 20), START + (1 << 21), "uncached-minus")
    host.tree.file(MEMTYPES, "PAT memtype list:\n%s\n%s" % (whole, beside))
    assert found(host) == []
    host.tree.file(MEMTYPES, "PAT memtype list:\n" + line % (START, START + 4096, "uncached-minus"))
    assert found(host) == ["%s: the kernel's list of memory types has uncached-minus for BAR 2" % ENA]
    host.tree.file(MEMTYPES, "PAT memtype list:\n" + beside)
    assert found(host) == ["%s: the kernel's list of memory types has no type at all for BAR 2" % ENA]


def test_isolated_devices_miss_the_module_too(host: Machine) -> None:
    """On a host with an IOMMU it is loaded for write combining alone."""
    bindings = json.loads(host.root.read_text(BINDINGS))
    host.tree.file(BINDINGS, json.dumps({**bindings, "backend": "iommu"}))
    host.tree.remove("/sys/module/noiommu")
    assert "noiommu is not loaded" in found(host)


# --- SPDK ---


def test_setup_sh_leaves_an_idle_disk_without_a_driver(host: Machine) -> None:
    host.unbind(OTHER)
    (line,) = found(host)
    assert line.startswith(
        "%s is an NVMe disk that is not declared and has no driver, as after SPDK's setup.sh" % OTHER
    )
    assert line.endswith("`echo %s > /sys/bus/pci/drivers_probe` gives it back to the kernel" % OTHER)
    override(host, OTHER, "vfio-pci")
    assert found(host)[0].endswith(", once its driver_override (vfio-pci) is cleared")
    override(host, OTHER, "(null)")
    host.probe(OTHER)
    assert found(host) == []


@pytest.mark.parametrize(
    "explain",
    [
        pytest.param(lambda host: override(host, OTHER, "pci-stub"), id="somebody wants another driver"),
        pytest.param(lambda host: host.tree.remove("/sys/bus/pci/drivers/nvme"), id="the kernel's driver is not there"),
        pytest.param(lambda host: host.tree.file(host.tree.real(OTHER) + "/class", "0x020000"), id="it is no disk"),
        pytest.param(lambda host: record(host, OTHER), id="it is recorded"),
    ],
)
def test_a_disk_whose_state_is_explained_is_no_drift(host: Machine, explain: Any) -> None:
    host.unbind(OTHER)
    explain(host)
    assert found(host) == []


def record(host: Machine, address: str) -> None:
    originals = json.loads(host.root.read_text(ORIGINALS))
    originals["devices"][address] = originals["devices"][DISK]
    host.tree.file(ORIGINALS, json.dumps(originals))


def test_reset_gives_our_disk_to_the_kernel(host: Machine) -> None:
    host.unbind(DISK)
    override(host, DISK, "(null)")
    host.bind(DISK, "nvme")
    (line,) = found(host)
    assert line.startswith("%s: set driver_override to vfio-pci, unbind from nvme, bind to vfio-pci" % DISK)
    assert line.endswith("(as after SPDK's `setup.sh reset`)")


def test_reset_of_an_old_version_leaves_our_disk_without_a_driver(host: Machine) -> None:
    host.unbind(DISK)
    assert found(host) == ["%s: bind to vfio-pci (as after SPDK's `setup.sh reset`)" % DISK]


def test_no_hint_at_spdk_for_what_it_does_not_touch(host: Machine) -> None:
    host.unbind(ENA)
    (line,) = found(host)
    assert "SPDK" not in line
    host.bind(ENA, "vfio-pci")
    host.unbind(DISK)
    host.drop(DISK)
    (line,) = found(host)
    assert "SPDK" not in line, "it does not remove our groups"
