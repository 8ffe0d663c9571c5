# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.command_line import CommandLinePlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.iommu import OWNER, Enabling, enabling
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.words import Parameters
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.iommu import host_iommu
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.backend import choose
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import FakeGrub
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:00:04.0"


def decide(tree: Tree, wanted: bool = True) -> Enabling:
    return enabling(tree.root, host_iommu(tree.root), wanted)


@pytest.fixture
def dark(tree: Tree) -> FakeGrub:
    """A host whose firmware describes an Intel IOMMU that the kernel was told not to use."""
    tree.file("/sys/firmware/acpi/tables/DMAR", b"DMAR")
    return FakeGrub(tree, linux="console=ttyS0 intel_iommu=off")


def put(boot: FakeGrub, what: Enabling) -> None:
    CommandLinePlan(boot.tree.root, boot, OWNER, Parameters(what.parameters, what.without)).apply()


def test_from_off_to_on_and_kept_there(dark: FakeGrub, tree: Tree) -> None:
    first = decide(tree)
    assert first == Enabling(["intel_iommu=on"], ["intel_iommu=off"], False, True, [])
    put(dark, first)
    assert decide(tree) == first._replace(recorded=True)
    dark.boot()
    tree.dir("/sys/devices/virtual/iommu/dmar0")
    tree.link("/sys/class/iommu/dmar0", "/sys/devices/virtual/iommu/dmar0")
    assert decide(tree) == first._replace(recorded=True, pending=False)
    assert decide(tree, wanted=False) == Enabling([], [], True, False, [])


def test_one_that_is_on_by_somebody_else_is_left_to_him(tree: Tree) -> None:
    tree.dir("/sys/class/iommu/dmar0")
    assert decide(tree) == Enabling([], [], False, False, [])


def test_a_host_without_one_is_not_concerned(tree: Tree) -> None:
    assert decide(tree) == Enabling([], [], False, False, [])


def test_amd_needs_only_what_switches_it_off_taken_away(tree: Tree) -> None:
    FakeGrub(tree)
    tree.file("/sys/firmware/acpi/tables/IVRS", b"IVRS")
    tree.file("/proc/cmdline", "root=/dev/sda1 amd_iommu=off iommu=off")
    assert decide(tree) == Enabling([], ["amd_iommu=off", "iommu=off"], False, True, [])


def test_one_that_stays_off_with_the_parameters_is_refused(dark: FakeGrub, tree: Tree) -> None:
    put(dark, decide(tree))
    dark.boot()
    found = decide(tree)
    assert not found.pending and [refusal.code for refusal in found.refusals] == ["iommu_stays_off"]
    assert "intel_iommu=on" in found.refusals[0].evidence[0] and "dmesg" in found.refusals[0].remedy
    tree.remove("/sys/firmware/acpi/tables/DMAR")
    tree.file("/sys/firmware/acpi/tables/IVRS", b"IVRS")
    tree.file("/proc/cmdline", "root=/dev/sda1")
    tree.remove("/var/lib/noiommu")
    assert "CONFIG_AMD_IOMMU" in decide(tree).refusals[0].remedy


def test_a_boot_loader_that_cannot_be_told_is_refused_beforehand(tree: Tree) -> None:
    tree.file("/sys/firmware/acpi/tables/DMAR", b"DMAR")
    found = decide(tree)
    assert not found.pending and [one.code for one in found.refusals] == ["bootloader"]
    assert "enable_iommu" in found.refusals[0].evidence[0]
    assert decide(tree, wanted=False).refusals == []


def test_insecure_mode_is_never_taken_instead(dark: FakeGrub, tree: Tree) -> None:
    assert choose(tree.root, "auto", True, True).backend == "iommu"
    assert choose(tree.root, "auto", True, False).backend == "dkms"
    pinned = choose(tree.root, "dkms", True, True)
    assert pinned.backend is None and [refusal.code for refusal in pinned.refusals] == ["iommu_wanted"]


def test_the_verdict_is_on_the_host_after_the_reboot(machine: Machine) -> None:
    tree = machine.tree
    tree.pci(NIC, driver="e1000e")
    tree.file("/proc/sys/kernel/osrelease", "6.1.0")
    tree.file("/lib/modules/6.1.0/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko:")
    tree.file("/proc/sys/kernel/tainted", "0")
    tree.file("/sys/firmware/acpi/tables/DMAR", b"DMAR")
    tree.file("/sbin/modprobe")
    tree.dir("/run/systemd/system")
    FakeGrub(tree)

    def verdict(backend: str = "auto", enable: bool = True) -> dict:
        report = Preflight(
            tree.root, GuardContext(tree.root), Declaration([{"address": NIC}], [], backend, True, enable)
        ).report()
        return {**report["verdict"], "boot": report["iommu_boot"]}

    found = verdict()
    assert (found["backend"], found["ok"], found["safe"], found["reboot_required"]) == ("iommu", True, False, True)
    assert "off until the reboot" in found["warnings"][0]
    assert found["boot"] == {"parameters": ["intel_iommu=on"], "without": [], "recorded": False, "pending": True}
    assert verdict(enable=False)["backend"] == "dkms"
    assert verdict("builtin")["refusals"][0]["code"] == "iommu_wanted"
    tree.file("/proc/cmdline", "intel_iommu=on")
    stays = verdict()
    assert not stays["ok"] and stays["refusals"][0]["code"] == "iommu_stays_off"


def test_a_dry_run_predicts_the_binding_after_the_reboot(machine: Machine) -> None:
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.file("/sys/firmware/acpi/tables/DMAR", b"DMAR")
    request = Request([{"address": NIC}], backend="iommu", accept_unsafe=True)
    context = GuardContext(machine.root)
    dry = BindingChange(machine.kernel, context, request, check_mode=True)
    assert dry.changed and dry.after()["devices"][0]["safety"] == "isolated"
    assert "off until the reboot" in dry.messages[0]
    with pytest.raises(Refused, match="needs a working hardware IOMMU"):
        BindingChange(machine.kernel, context, request)
    assert machine.requests == []
