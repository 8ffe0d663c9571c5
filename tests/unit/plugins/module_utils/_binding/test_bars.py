# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write combining as part of a binding: declared, predicted, made, kept over boots, and given back."""

from __future__ import annotations

import json

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS, ORIGINALS, WRITE_COMBINING
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    boot,
    content_of,
    converge,
    fails_everywhere,
    killed_everywhere,
)

ENA, NIC = "0000:00:05.0", "0000:00:06.0"
COMBINED = Request([{"address": ENA, "write_combining": ["2"]}, {"address": NIC}], accept_unsafe=True)
PLAIN = Request([{"address": ENA}, {"address": NIC}], accept_unsafe=True)


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host without an IOMMU that has an ENA, whose BAR 2 is the memory of its low-latency queues."""
    tree = machine.tree
    tree.file("/proc/cpuinfo", "flags\t\t: fpu pat")
    tree.pci(ENA, "1d0f:ec20", driver="ena")
    tree.net("eth1", ENA, "52:54:00:00:00:11", up=True)
    tree.bars(ENA, {0: (1 << 14, "mem"), 2: (1 << 20, "pref"), 4: (1 << 16, "pref")})
    tree.capabilities(ENA)
    tree.pci(NIC, driver="e1000e")
    tree.dir("/run/systemd/system")
    return machine


@pytest.fixture
def secure(host: Machine) -> Machine:
    """The same with a hardware IOMMU."""
    host.tree.group(3, ENA)
    host.tree.group(4, NIC)
    return host


def bars_of(host: Machine) -> list[str]:
    return (host.root.read_text(WRITE_COMBINING) or "").splitlines()


def states(change: BindingChange) -> dict[str, list[int]]:
    return {device["address"]: device["write_combining"] for device in change.after()["devices"]}


def test_a_bar_is_write_combined_before_vfio_has_the_device(host: Machine) -> None:
    change = converge(host, COMBINED)
    assert bars_of(host) == ["%s 2 on" % ENA]
    assert states(change) == {ENA: [2], NIC: []}
    asked = [
        request for request in host.requests if ENA in request and ("write_combining" in request or "/bind" in request)
    ]
    assert asked == ["%s <- +%s 2" % (WRITE_COMBINING, ENA), "/sys/bus/pci/drivers/vfio-pci/bind <- %s" % ENA]
    (entry,) = [entry for entry in json.loads(host.root.read_text(BINDINGS))["devices"] if "write_combining" in entry]
    assert (entry["address"], entry["write_combining"]) == (ENA, [2])


def test_the_second_run_asks_nothing_of_the_kernel(host: Machine) -> None:
    converge(host, COMBINED)
    host.requests.clear()
    again = binding(host, COMBINED)
    assert not again.changed and not again.steps and again.before() == again.after()
    assert host.requests == []


def test_check_mode_predicts_it(host: Machine) -> None:
    content = host.tree.content()
    predicted = binding(host, COMBINED, check_mode=True)
    assert host.tree.content() == content and host.requests == []
    assert "%s: have BAR 2 mapped write-combined" % ENA in predicted.steps
    (devices, *_files) = predicted.diff()
    assert "write_combining: none" in devices["before"] and "write_combining: [2]" in devices["after"]
    assert states(predicted) == states(converge(host, COMBINED)) == {ENA: [2], NIC: []}


def test_prefetchable_means_what_holds_data_only(host: Machine) -> None:
    converge(host, COMBINED._replace(devices=[{"address": ENA, "write_combining": ["prefetchable"]}]))
    assert bars_of(host) == ["%s 2 on" % ENA, "%s 4 on" % ENA]


def test_every_reason_is_given_before_anything_is_touched(host: Machine) -> None:
    host.tree.file("/proc/cmdline", "nopat")
    entries = [{"address": ENA, "write_combining": ["0", "2", "3"]}, {"address": NIC, "write_combining": ["0"]}]
    with pytest.raises(Refused) as caught:
        binding(host, COMBINED._replace(devices=entries))
    assert [refusal.code for refusal in caught.value.refusals] == ["write_combining"] * 4
    assert host.requests == []


def test_another_choice_takes_the_device_from_vfio_for_a_moment(host: Machine) -> None:
    converge(host, COMBINED)
    host.requests.clear()
    converge(host, COMBINED._replace(devices=[{"address": ENA, "write_combining": ["4"]}, {"address": NIC}]))
    assert bars_of(host) == ["%s 4 on" % ENA]
    assert not any(NIC in request for request in host.requests if request.startswith("/sys"))
    converge(host, PLAIN)
    assert bars_of(host) == []
    assert not any("write_combining" in entry for entry in json.loads(host.root.read_text(BINDINGS))["devices"])


def test_a_device_in_use_is_not_taken_for_it(host: Machine) -> None:
    converge(host, PLAIN)
    group = host.root.link_name(host.tree.real(ENA), "iommu_group")
    host.tree.file("/proc/77/comm", "testpmd")
    host.tree.dir("/proc/77/fd")
    host.tree.at("/proc/77/fd/5").symlink_to("/dev/vfio/" + group)
    with pytest.raises(Refused) as caught:
        binding(host, COMBINED)
    assert [refusal.code for refusal in caught.value.refusals] == ["in_use"]


def test_it_is_given_back(host: Machine) -> None:
    pristine = host.tree.content()
    converge(host, COMBINED)
    converge(host, NOTHING)
    assert host.tree.content() == pristine


def test_a_bar_that_was_named_by_hand_stays_named(host: Machine) -> None:
    """What the host was before the first run is what it goes back to."""
    host.load("noiommu")
    host.unbind(ENA)
    host.root.write_sysfs(WRITE_COMBINING, "+%s 4" % ENA)
    host.bind(ENA, "ena")
    converge(host, COMBINED)
    assert bars_of(host) == ["%s 2 on" % ENA]
    assert json.loads(host.root.read_text(ORIGINALS))["devices"][ENA]["write_combining"] == [4]
    converge(host, NOTHING)
    assert bars_of(host) == ["%s 4 off" % ENA] and host.driver_of(ENA) == "ena"


def test_the_host_s_driver_is_left_alone(secure: Machine) -> None:
    """Somebody gave the device back: what is still named harms nobody, and to change that would unbind the driver."""
    converge(secure, COMBINED)
    secure.unbind(ENA)
    secure.tree.file(secure.tree.real(ENA) + "/driver_override", "(null)")
    secure.bind(ENA, "ena")
    secure.requests.clear()
    converge(secure, NOTHING)
    assert secure.driver_of(ENA) == "ena"
    assert not any("unbind" in request and ENA in request for request in secure.requests)


def test_a_bar_that_is_mapped_already_fails_the_run(host: Machine) -> None:
    """Binding succeeds, but without write combining: the module says so, and the run is rolled back."""
    pristine = host.tree.content()
    host.uncombined.add(ENA)
    host.tree.file("/dev/kmsg")
    with pytest.raises(HostError) as caught:
        converge(host, COMBINED)
    assert caught.value.code == "write_combining"
    assert "BAR 2 of %s is not write-combined" % ENA in caught.value.message
    assert "%s: off" % WRITE_COMBINING in caught.value.evidence
    host.tree.remove("/dev/kmsg")
    assert host.tree.content() == pristine


def test_an_older_module_that_is_loaded_knows_none(host: Machine) -> None:
    converge(host, PLAIN)
    host.tree.remove(WRITE_COMBINING)
    with pytest.raises(HostError) as caught:
        converge(host, COMBINED)
    assert "of an earlier version" in caught.value.message and "Reboot" in caught.value.remedy
    assert host.driver_of(ENA) == "vfio-pci"


def test_on_a_host_with_an_iommu_the_module_serves_for_that_alone(secure: Machine) -> None:
    pristine = secure.tree.content()
    change = converge(secure, COMBINED._replace(accept_unsafe=False))
    assert change.backend == "iommu" and bars_of(secure) == ["%s 2 on" % ENA]
    devices = {device["address"]: device for device in change.after()["devices"]}
    assert devices[ENA]["safety"] == "isolated" and devices[ENA]["iommu_group"] == 3
    assert not any(request.startswith(WRITE_COMBINING.replace("write_combining", "add")) for request in secure.requests)
    assert not binding(secure, COMBINED).changed
    converge(secure, PLAIN._replace(accept_unsafe=False))
    assert not secure.root.exists("/sys/module/noiommu"), "it is unloaded when nothing needs it"
    converge(secure, NOTHING)
    assert secure.tree.content() == pristine


def test_on_a_host_with_an_iommu_the_module_has_to_be_installed(secure: Machine) -> None:
    secure.module_index("vfio-pci", "vfio_virqfd")
    with pytest.raises(Refused) as caught:
        binding(secure, COMBINED)
    assert caught.value.code == "backend_unavailable"
    assert any("dry run" in message for message in binding(secure, COMBINED, check_mode=True).messages)
    converge(secure, PLAIN)


def test_each_boot_makes_it_again(host: Machine) -> None:
    converge(host, COMBINED)
    restart(host)
    failed, said = boot(host)
    assert failed == 0, said
    assert bars_of(host) == ["%s 2 on" % ENA] and not binding(host, COMBINED).changed


def test_a_boot_binds_without_rather_than_not_at_all(host: Machine) -> None:
    converge(host, COMBINED)
    restart(host)
    host.uncombined.add(ENA)
    failed, said = boot(host)
    assert failed == 1 and any("bound without write combining" in line for line in said)
    assert host.driver_of(ENA) == host.driver_of(NIC) == "vfio-pci"


def test_a_boot_without_the_module_still_binds_isolated_devices(secure: Machine) -> None:
    converge(secure, COMBINED)
    restart(secure)
    secure.broken.add("noiommu")
    failed, said = boot(secure)
    assert failed == 1 and any("no BAR can be write-combined" in line for line in said)
    assert secure.driver_of(ENA) == secure.driver_of(NIC) == "vfio-pci"


def restart(host: Machine) -> None:
    """The host's drivers have the devices, and nothing is loaded."""
    for address, driver in ((ENA, "ena"), (NIC, "e1000e")):
        host.unbind(address)
        host.tree.file(host.tree.real(address) + "/driver_override", "(null)")
        if host.root.exists("/sys/class/iommu/noiommu-" + address):
            host.drop(address)
        host.bind(address, driver)
    for module in ("noiommu", "vfio-pci", "vfio_virqfd", "vfio_iommu_type1"):
        host.unload(module)


@pytest.mark.parametrize("before,wanted", [([], COMBINED), ([PLAIN], COMBINED), ([COMBINED], NOTHING)])
def test_a_failure_anywhere_is_undone(host: Machine, before: list[Request], wanted: Request) -> None:
    fails_everywhere(host, before, wanted, content_of)


def test_a_run_that_is_killed_is_finished(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_everywhere(host, [], COMBINED, monkeypatch)
