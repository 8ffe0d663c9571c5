# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that fails, is killed or gets a signal anywhere leaves the host as it was, or the next run finishes it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import transaction
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import pci
from ansible_collections.baremetal.noiommu.tests.unit.support.data_nics import (
    BOTH,
    NIC,
    VIRTIO,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import (
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
)

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
