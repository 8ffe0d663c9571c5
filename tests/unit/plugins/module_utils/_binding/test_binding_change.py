# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binding as a transaction, against a kernel that reacts: converges, repeats to nothing, and puts everything back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import transaction
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import pci
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState, Route
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import (
    NOIOMMU_MODE,
    UNSAFE_INTERRUPTS,
    Machine,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import (
    NOTHING,
    binding,
    content_of,
    converge,
    fails_everywhere,
    killed_everywhere,
    transitions,
    use,
)

NIC, VIRTIO, DISK = "0000:00:04.0", "0000:00:05.0", "0000:00:06.0"
BOTH = Request([{"address": NIC}, {"interface": "eth2"}], accept_unsafe=True)


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host with two data NICs and a disk."""
    tree = machine.tree
    tree.pci(NIC, driver="e1000e")
    tree.net("eth1", NIC, "52:54:00:00:00:11", up=True)
    tree.pci(VIRTIO, "1af4:1041", driver="virtio-pci")
    tree.net("eth2", VIRTIO, "52:54:00:00:00:12", child="virtio2")
    tree.pci(DISK, "1af4:1042", "010000", driver="virtio-pci")
    tree.dir("/run/systemd/system")
    return machine


def state(change: BindingChange) -> dict:
    return {device["address"]: device for device in change.after()["devices"]}


# --- the way there ---


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


# --- the way back ---


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


# --- all or nothing ---


TRANSITIONS = transitions(
    {
        "take": ([], BOTH),
        "take one more": ([Request([{"address": NIC}], accept_unsafe=True)], BOTH),
        "swap": ([Request([{"address": NIC}], accept_unsafe=True)], Request([{"address": VIRTIO}], accept_unsafe=True)),
        "change the hint": ([BOTH], BOTH._replace(dpdk_pa_hint=False)),
        "absent": ([BOTH], NOTHING),
    }
)


@TRANSITIONS
def test_a_failure_anywhere_puts_everything_back(host: Machine, before: list[Request], wanted: Request) -> None:
    fails_everywhere(host, before, wanted, content_of)


@TRANSITIONS
def test_a_run_killed_anywhere_is_finished_or_taken_back(
    host: Machine, before: list[Request], wanted: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_everywhere(host, before, wanted, monkeypatch)


def test_a_failure_says_what_was_put_back(host: Machine) -> None:
    host.broken.add("vfio-pci")
    host.load("vfio-pci")
    with pytest.raises(HostError) as caught:
        binding(host, BOTH).apply()
    assert caught.value.code == "bind"
    assert any("put back" in line for line in caught.value.evidence)
    assert host.driver_of(NIC) == "e1000e"
    assert host.root.read_text("/sys/class/net/eth1/flags") == "0x1003"


def test_steps_that_succeed_without_effect_are_a_failure(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction.Transaction, "_run", lambda *_args: None)
    with pytest.raises(HostError, match="not in the wanted state") as caught:
        binding(host, BOTH).apply()
    assert any("bind to vfio-pci" in line for line in caught.value.evidence)


def test_a_rollback_that_fails_says_so(host: Machine) -> None:
    host.load("vfio-pci")
    host.broken |= {"vfio-pci", "e1000e"}
    with pytest.raises(HostError) as caught:
        binding(host, BOTH).apply()
    assert any(line.startswith("NOT put back: %s" % NIC) for line in caught.value.evidence)
    # How it was is still known, and the next run takes it back.
    host.broken.clear()
    binding(host, NOTHING).apply()
    assert host.driver_of(NIC) == "e1000e" and not host.root.exists("/var/lib/noiommu/originals.json")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_middle_puts_everything_back(
    host: Machine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    content, handlers = host.tree.content(), signal.getsignal(number)
    bind = host.bind

    def interrupted(address: str, driver: str) -> None:
        bind(address, driver)
        # The second comes while everything is put back, and changes nothing.
        os.kill(os.getpid(), number)

    monkeypatch.setattr(host, "bind", interrupted)
    with pytest.raises(HostError, match="ended this run before it was done") as caught:
        binding(host, BOTH).apply()
    assert caught.value.code == "interrupted" and "put back" in caught.value.evidence[0]
    assert _without_groups(host.tree.content()) == _without_groups(content)
    assert signal.getsignal(number) == handlers


def _without_groups(content: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in content.items() if not path.endswith("ifindex")}


def test_jobs_run_together_and_the_first_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "_AT_ONCE", 4)
    together, done = threading.Barrier(4, timeout=60), []
    transaction.in_parallel([together.wait] * 4)

    def fail() -> None:
        raise HostError("injected", "it fails")

    with pytest.raises(HostError, match="it fails"):
        transaction.in_parallel([fail, *[lambda number=number: done.append(number) for number in range(200)]])
    assert threading.active_count() == 1 and len(done) <= 200


def test_a_signal_waits_for_what_was_begun_and_begins_no_more(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "_AT_ONCE", 2)
    begun, ended = [], []

    def job() -> None:
        begun.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        ended.append(1)

    with pytest.raises(HostError, match="ended this run"), transaction.Transaction(host.kernel):
        transaction.in_parallel([job] * 50)
    assert begun == ended and len(begun) < 50


def test_an_mtu_comes_back_with_its_interface(host: Machine) -> None:
    host.tree.file("/sys/class/net/eth1/mtu", "9000")
    converge(host, BOTH)
    parked = next(host.tree.base.parent.glob("parked-%s-eth1" % NIC))
    (parked / "mtu").write_text("1500\n")  # a driver starts with its default
    converge(host, NOTHING)
    assert host.root.read_text("/sys/class/net/eth1/mtu") == "9000"


@pytest.mark.parametrize("permanent", [None, "52:54:00:00:00:aa"])
def test_an_address_that_does_not_last_is_no_identity(
    host: Machine, monkeypatch: pytest.MonkeyPatch, permanent: str | None
) -> None:
    monkeypatch.setattr(pci, "_permanent_address", lambda root, name: permanent)
    host.tree.file("/sys/class/net/eth1/addr_assign_type", "3" if permanent else "1")
    content = host.tree.content()
    change = converge(host, BOTH)
    record = json.loads(host.root.read_text("/var/lib/noiommu/originals.json"))["devices"][NIC]["interfaces"][0]
    assert (record["mac"], record["permanent"]) == ("52:54:00:00:00:11", permanent)
    entry = json.loads(host.root.read_text("/etc/noiommu/bindings.json"))["devices"][0]
    assert entry["macs"] == change.resolved(change.after())[0]["macs"] == ([permanent] if permanent else [])
    # It is what an operator saw, though.
    assert host.root.exists("/dev/vfio/by-mac/52:54:00:00:00:11")
    for mac in ["52:54:00:00:00:11", *([permanent] if permanent else [])]:
        assert not binding(host, BOTH._replace(devices=[{"mac": mac}, {"interface": "eth2"}])).changed
    parked = next(host.tree.base.parent.glob("parked-%s-eth1" % NIC))
    (parked / "address").write_text("%s\n" % (permanent or "52:54:00:77:77:77"))  # what the driver starts with
    change = converge(host, NOTHING)
    assert change.messages == [] and host.root.read_text("/sys/class/net/eth1/flags") == "0x1003"
    host.tree.file("/sys/class/net/eth1/address", "52:54:00:00:00:11")
    assert host.tree.content() == content


# --- names ---


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


# --- refusals ---


def test_every_reason_is_given_at_once(host: Machine) -> None:
    index = host.root.read_int("/sys/class/net/eth1/ifindex")
    net = NetState([], [Route("inet6", "77", "2001:db8::/64", None, (index,), False)])
    request = Request([{"address": NIC}, {"address": "0000:99:00.0"}])
    with pytest.raises(Refused) as caught:
        binding(host, request, net=net)
    assert [refusal.code for refusal in caught.value.refusals] == ["selector", "unsafe_not_accepted", "guarded_device"]
    assert "2001:db8::/64 in table 77 dev eth1" in str(caught.value)
    assert host.requests == []


def test_a_missing_kernel_module_is_an_error_but_in_check_mode_a_warning(host: Machine) -> None:
    host.module_index("vfio-pci", "vfio_iommu_type1")
    with pytest.raises(Refused, match="noiommu is not installed"):
        binding(host, BOTH)
    change = binding(host, BOTH, check_mode=True)
    assert change.changed and any("dry run" in message for message in change.messages)


def test_a_device_in_use_is_not_rebuilt(host: Machine) -> None:
    converge(host, BOTH)
    use(host, NIC)
    host.requests.clear()
    with pytest.raises(Refused) as caught:
        binding(host, BOTH._replace(dpdk_pa_hint=False))
    assert [refusal.code for refusal in caught.value.refusals] == ["in_use"]
    assert "process 4711 (dpdk-testpmd)" in str(caught.value)
    assert host.requests == []
    assert not binding(host, BOTH).changed


@pytest.mark.parametrize(
    "kind, node", [("uio/uio0", "/dev/uio0"), ("infiniband_verbs/uverbs0", "/dev/infiniband/uverbs0")]
)
def test_a_device_that_another_userspace_driver_uses_is_not_taken(host: Machine, kind: str, node: str) -> None:
    host.tree.dir("%s/%s" % (host.tree.real(NIC), kind))
    host.tree.file(node)
    host.requests.clear()
    assert binding(host, BOTH).changed
    host.tree.file("/proc/815/comm", "ovs-vswitchd")
    host.tree.dir("/proc/815/fd")
    host.tree.at("/proc/815/fd/9").symlink_to(node)
    with pytest.raises(Refused, match=r"%s has to be unbound .*in use" % NIC) as caught:
        binding(host, BOTH)
    assert "%s is open in process 815 (ovs-vswitchd)" % node in str(caught.value) and host.requests == []


def test_an_unreadable_record_stops_everything(host: Machine) -> None:
    host.tree.file("/var/lib/noiommu/originals.json", "{")
    with pytest.raises(HostError, match=r"originals\.json is unusable"):
        binding(host, BOTH)


# --- the other backends ---


def test_iommu_binds_without_anything_insecure(host: Machine) -> None:
    host.tree.group(1, NIC)
    host.tree.group(2, VIRTIO)
    change = converge(host, Request([{"address": NIC}]))
    assert change.backend == "iommu"
    assert state(change)[NIC]["safety"] == "isolated"
    assert not host.root.exists("/sys/module/noiommu") and not host.root.exists(UNSAFE_INTERRUPTS)
    assert not host.root.exists("/etc/modprobe.d/noiommu.conf")
    assert host.root.exists("/etc/noiommu/bindings.json")


def test_iommu_refuses_a_group_that_the_host_shares(host: Machine) -> None:
    host.tree.group(1, NIC, DISK)
    host.tree.pci("0000:00:1c.0", "8086:7a3c", "060400", driver="pcieport", header_type=1)
    host.tree.group(2, "0000:00:1c.0", VIRTIO)
    with pytest.raises(Refused) as caught:
        binding(host, Request([{"address": NIC}, {"address": VIRTIO}]))
    assert [refusal.code for refusal in caught.value.refusals] == ["group_not_viable"]
    assert "%s is in group 1 and bound to virtio-pci" % DISK in str(caught.value)


def test_insecure_backends_are_refused_beside_an_iommu(host: Machine) -> None:
    host.tree.group(1, NIC)
    for backend in ("dkms", "builtin"):
        with pytest.raises(Refused) as caught:
            binding(host, Request([{"address": NIC}], backend=backend, accept_unsafe=True))
        assert caught.value.refusals[0].code == "iommu_active"


def test_builtin_uses_vfios_own_groups(host: Machine) -> None:
    content = host.tree.content()
    host.builtin_noiommu = True
    host.load("vfio")
    loaded = host.tree.content()
    change = converge(host, BOTH)
    assert change.backend == "builtin" and host.root.read_text(NOIOMMU_MODE) == "Y"
    assert change.resolved(change.after())[0]["chardev"].startswith("/dev/vfio/noiommu-")
    assert "options vfio enable_unsafe_noiommu_mode=1" in host.root.read_text("/etc/modprobe.d/noiommu.conf")
    assert not binding(host, BOTH).changed
    converge(host, NOTHING)
    assert host.tree.content() == loaded != content


def test_moving_from_dkms_to_builtin_leaves_nothing_of_dkms(host: Machine) -> None:
    converge(host, BOTH)
    host.builtin_noiommu = True
    host.load("vfio")
    change = converge(host, BOTH)
    assert change.backend == "builtin"
    assert not host.root.exists("/sys/module/noiommu")
    assert not binding(host, BOTH).changed


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
