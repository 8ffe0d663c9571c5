# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each boot binds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import PROGRAM, UNIT
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot as _boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.boot import Boot
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.iommu import chardevs
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciDevice
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.tests.unit.support.booting import (
    FREE,
    NIC,
    REQUEST,
    VIRTIO,
    move,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.transactions import NOTHING, binding, boot, converge


def test_everything_comes_up_as_declared(booted: Machine) -> None:
    failed, lines = boot(booted)
    assert failed == 0 and len(lines) == 2
    assert lines[0].startswith("%s: on vfio-pci, /dev/vfio/" % NIC) and "unsafe" in lines[0]
    assert (booted.driver_of(NIC), booted.driver_of(VIRTIO)) == ("vfio-pci", "vfio-pci")
    assert not binding(booted, REQUEST).changed


@pytest.mark.parametrize(
    "interfaces, jobs, asked, is_given_up",
    [
        ("pci %s uio_pci_generic" % NIC, ["17", "17", ""], 3, False),
        ("pci %s uio_pci_generic" % NIC, ["17"] * 999, 1, True),
        ("pci %s vfio-pci" % FREE, ["17"], 0, False),
        ("#pci %s vfio-pci" % NIC, ["17"], 0, False),
    ],
)
def test_dpdk_service_is_waited_for_where_it_binds_a_device_of_ours_but_not_for_ever(
    booted: Machine, monkeypatch: pytest.MonkeyPatch, interfaces: str, jobs: list[str], asked: int, is_given_up: bool
) -> None:
    assert "dpdk" not in (booted.root.read_text(UNIT) or ""), "it has no time limit, and the network waits for our unit"
    monkeypatch.setattr(_boot, "BOOT_WAIT", 0.0 if is_given_up else 60.0)
    booted.tree.file("/etc/dpdk/interfaces", interfaces)
    booted.tree.file("/etc/systemd/system/multi-user.target.wants/dpdk.service")
    real, seen = booted.runner.run, []

    def run(*argv: str) -> RunResult:
        if argv[-1] != "dpdk.service":
            return real(*argv)
        assert argv[:2] == ("systemctl", "show") and booted.driver_of(NIC) == "e1000e"
        seen.append(argv)
        return RunResult(0, jobs[len(seen) - 1] + "\n", "")

    monkeypatch.setattr(booted.runner, "run", run)
    failed, lines = boot(booted)
    assert failed == 0 and booted.driver_of(NIC) == "vfio-pci" and len(seen) == asked
    assert is_given_up == any("dpdk.service has not ended" in line and NIC in line for line in lines)


def test_a_device_that_is_pulled_out_meanwhile_keeps_no_other(booted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = booted.kernel.wait_for_group

    def wait(device: PciDevice) -> str:
        if device.address == NIC:
            raise FileNotFoundError(2, "No such file or directory", device.path)
        return real(device)

    monkeypatch.setattr(booted.kernel, "wait_for_group", wait)
    failed, lines = boot(booted)
    assert failed == 1 and booted.driver_of(VIRTIO) == "vfio-pci" and lines[0].startswith("%s: FAILED: " % NIC)


@pytest.mark.parametrize("part", ["links.update", "Boot._give_nodes"])
def test_names_that_cannot_be_made_keep_nothing_else(
    booted: Machine, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    done = []

    def fail(*_args: object) -> None:
        raise HostError("file", "Could not write it: No space left on device.")

    monkeypatch.setattr("%s.%s" % (_boot.__name__, "links.update"), lambda *_args: done.append("links.update"))
    monkeypatch.setattr("%s.%s" % (_boot.__name__, "Boot._give_nodes"), lambda _self: done.append("Boot._give_nodes"))
    monkeypatch.setattr("%s.%s" % (_boot.__name__, part), fail)
    failed, lines = boot(booted)
    assert failed == 1 and len(done) == 1 and any("No space left" in line for line in lines)
    assert (booted.driver_of(NIC), booted.driver_of(VIRTIO)) == ("vfio-pci", "vfio-pci")


def test_a_second_run_asks_nothing(booted: Machine) -> None:
    boot(booted)
    booted.requests.clear()
    assert boot(booted)[0] == 0 and booted.requests == []


def test_a_device_whose_bus_number_moved_is_found_by_its_mac(booted: Machine) -> None:
    move(booted, NIC, FREE)
    failed, lines = boot(booted)
    assert failed == 0 and booted.driver_of(FREE) == "vfio-pci" and "found by its MAC" in lines[0]
    # The records follow, so that the way back stays known and the next Ansible run finds nothing to do.
    by_mac = Request([{"mac": "52:54:00:00:00:11"}, {"address": VIRTIO}], accept_unsafe=True)
    assert not binding(booted, by_mac).changed
    converge(booted, NOTHING)
    assert booted.driver_of(FREE) == "e1000e"


def test_a_device_that_is_gone_keeps_no_other_from_coming_up(booted: Machine) -> None:
    booted.tree.remove("/sys/bus/pci/devices/" + NIC)
    booted.tree.remove("/sys/class/net/eth1")
    booted.tree.remove("/sys/devices/pci0000:00/" + NIC)
    failed, lines = boot(booted)
    assert failed == 1 and "no such device" in lines[0] and booted.driver_of(VIRTIO) == "vfio-pci"


def test_a_mounted_disk_is_refused_at_boot_too(booted: Machine) -> None:
    booted.tree.block("sda", booted.tree.real(NIC) + "/host0", "8:0")
    booted.tree.mounts(("8:0", "/", "/dev/sda"))
    failed, lines = boot(booted)
    assert failed == 1 and "mounted" in lines[0] and booted.driver_of(NIC) == "e1000e"


def test_a_device_that_fails_is_put_back(booted: Machine) -> None:
    booted.load("vfio-pci")
    booted.broken.add("vfio-pci")
    failed, lines = boot(booted)
    assert failed == 2 and "FAILED" in lines[0]
    assert (booted.driver_of(NIC), booted.driver_of(VIRTIO)) == ("e1000e", "virtio-pci")
    assert not booted.root.exists("/sys/class/iommu/noiommu-" + NIC)


def test_without_the_kernel_module_nothing_is_touched(booted: Machine) -> None:
    booted.broken.add("noiommu")
    failed, lines = boot(booted)
    assert failed == 2 and "no device was bound" in lines[0] and "could not be loaded" in lines[0]
    assert booted.driver_of(NIC) == "e1000e"


def test_an_iommu_that_works_by_now_overrules_insecure_bindings(booted: Machine) -> None:
    booted.tree.group(1, NIC)
    failed, lines = boot(booted)
    assert failed == 2 and "hardware IOMMU" in lines[0] and booted.driver_of(NIC) == "e1000e"


def test_nothing_declared_is_no_failure(machine: Machine) -> None:
    assert boot(machine)[0] == 0


def test_a_signal_ends_the_run_and_puts_its_device_back(booted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    bind = booted.bind

    def interrupted(address: str, driver: str) -> None:
        bind(address, driver)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(booted, "bind", interrupted)
    with pytest.raises(HostError, match="ended this run"):
        boot(booted)
    assert (booted.driver_of(NIC), booted.driver_of(VIRTIO)) == ("e1000e", "virtio-pci")


def test_the_nodes_belong_to_the_group_when_the_unit_is_done(booted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """udev's rule does the same, but a service that is ordered after the unit may be sooner."""
    given = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((path, uid, gid)))
    booted.tree.pci("0000:00:1e.0")
    booted.tree.group(77, "0000:00:1e.0", name="noiommu", node=None)
    booted.tree.file("/dev/vfio/77")  # of somebody else's device
    booted.tree.file("/etc/group", "dpdk:x:990:")
    boot(booted)
    assert given == []
    booted.tree.file("/var/lib/noiommu/access.json", '{"version": 1, "group": "dpdk"}')
    boot(booted)
    ours = [path for path in chardevs(booted.root) if path != "/dev/vfio/77"]
    assert given == [(booted.root.path(path), 0, 990) for path in ours] and len(ours) == 2
    assert {booted.tree.at(path).stat().st_mode & 0o777 for path in ours} == {0o660}


def test_status(booted: Machine) -> None:
    tool = Boot(booted.kernel, GuardContext(booted.root), print)
    assert tool.status()["ok"] is False
    tool.bind()
    status = tool.status()
    assert status["ok"] and [device["driver"] for device in status["devices"]] == ["vfio-pci", "vfio-pci"]
    booted.tree.remove("/sys/bus/pci/devices/" + NIC)
    assert tool.status()["devices"][0] == {"address": NIC, "present": False, "ok": False}


# --- the copy on the host ---


def test_the_installed_copy_runs_on_its_own(booted: Machine) -> None:
    with zipfile.ZipFile(booted.tree.at(PROGRAM)) as program:
        sources = {name: program.read(name).decode() for name in program.namelist()}
    for name, source in sources.items():
        assert "ansible_collections" not in source, name
        assert "SPDX-License-Identifier" in source or name.endswith(("__main__.py", "__init__.py")), name
    done = subprocess.run(
        [sys.executable, "-I", str(booted.tree.at(PROGRAM)), "status"],
        capture_output=True,
        text=True,
        check=False,
    )
    # It looks at the machine that runs this test, which has no bindings.
    assert json.loads(done.stdout) == {"backend": None, "ok": True, "devices": []}, done.stderr
    converge(booted, NOTHING)
    assert not booted.root.exists("/usr/local/lib/noiommu")


def test_the_unit_orders_itself_before_the_network(booted: Machine) -> None:
    unit = booted.root.read_text(UNIT)
    assert "Before=network-pre.target" in unit and "Wants=network-pre.target" in unit
    assert "-I -B %s bind" % PROGRAM in unit


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["bind", "extra"]])
def test_usage(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    assert _boot.main(argv) == 2
    assert "usage" in capsys.readouterr().out
