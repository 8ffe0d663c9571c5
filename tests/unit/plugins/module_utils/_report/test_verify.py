# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command noiommu-verify: one line, an exit code, JSON and metrics, from the host's records alone."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import files
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import paths, times
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    BINDINGS,
    MODPROBE,
    PROGRAM,
    VERIFY,
    WANTS,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import bundle
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import access, verify
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import UNSAFE_INTERRUPTS, Machine

NIC, VIRTIO = "0000:00:04.0", "0000:00:05.0"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
DROP_INS = [paths.drop_in_path(name) for name in ("fwd.service", "dev-hugepages.mount")]
BOOT_SCRIPT = "reserve() {\n    name=$1\n}\nreserve '2M' %s %d /proc/meminfo\nexit $failed"


@pytest.fixture
def host(machine: Machine) -> Machine:
    """A host that was deployed: two devices, hugepages, a group."""
    tree = machine.tree
    tree.pci(NIC, driver="e1000e")
    tree.pci(VIRTIO, "1af4:1041", driver="virtio-pci")
    devices = [{"address": NIC}, {"address": VIRTIO}]
    request = Request(devices, accept_unsafe=True, insecure_until="2026-03-01")
    BindingChange(machine.kernel, GuardContext(machine.root), request).apply()
    tree.file("/proc/sys/kernel/tainted", "12352")
    tree.file("/proc/sys/kernel/osrelease", os.uname().release)
    for name, value in (("nr", "130"), ("surplus", "2"), ("free", "100")):
        tree.file("%s/%s_hugepages" % (POOL, name), value)
    tree.file(paths.HUGEPAGES_SCRIPT, BOOT_SCRIPT % (POOL, 128))
    granted = {
        "group": "dpdk",
        "group_made": True,
        "users_added": ["ann"],
        "version": 1,
        "services": ["fwd.service"],
        "hugetlbfs": ["/dev/hugepages", 0, 0, 0o755],
    }
    tree.file(paths.ACCESS_RECORD, json.dumps(granted))
    tree.file("/etc/group", "root:x:0:\ndpdk:x:990:ann")
    tree.file(paths.UDEV_RULES, files.udev_rules("dpdk"))
    for path in (paths.LIMITS, paths.HUGEPAGES_UNIT, paths.HUGEPAGES_WANTS, *DROP_INS):
        tree.file(path)
    tree.file(paths.HUGETLB_MOUNTS_RECORD, json.dumps({"version": 1, "mounts": {"/mnt/huge": []}}))
    tree.file("/proc/1/mountinfo", "30 1 0:30 / /mnt/huge rw shared:1 - hugetlbfs hugetlbfs rw,pagesize=2M")
    return machine


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Who has the device node: only root could make one in a tree."""
    found = {"/dev/vfio/0": SimpleNamespace(st_gid=990, st_mode=0o20660)}
    monkeypatch.setattr(access, "nodes", lambda root: found)
    return found


def run(host: Machine, capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, str]:
    code = verify.main(list(argv), host.root)
    out = capsys.readouterr().out
    assert out.endswith("\n") and (argv or out.count("\n") == 1)
    return code, out.strip()


def test_as_deployed(host: Machine, capsys: pytest.CaptureFixture) -> None:
    before = host.tree.content()
    assert run(host, capsys) == (
        0,
        "OK: 2 devices; backend dkms; INSECURE since 2026-03-01T12:00:00Z, accepted until 2026-03-01;"
        " kernel taint 12352",
    )
    assert host.tree.content() == before


DRIFT: dict[str, tuple[Callable[[Machine], Any], str]] = {
    "a device unbound": (lambda host: host.unbind(NIC), "device bindings: %s: bind to vfio-pci" % NIC),
    "a device gone": (
        lambda host: host.tree.remove("/sys/bus/pci/devices/" + VIRTIO),
        "device bindings: %s is gone" % VIRTIO,
    ),
    "another device": (
        lambda host: host.tree.file(host.tree.real(NIC) + "/device", "0x1533"),
        "%s is 8086:1533 instead of 8086:10d3" % NIC,
    ),
    "fewer pages": (
        lambda host: host.tree.file(POOL + "/nr_hugepages", "66"),
        "hugepages: %s: 64 pages instead of 128" % POOL,
    ),
    "no such pool": (lambda host: host.tree.remove(POOL), "0 pages instead of 128"),
    "a user lost": (lambda host: host.tree.file("/etc/group", "dpdk:x:990:"), "access: ann is not a member of dpdk"),
    "the group gone": (lambda host: host.tree.file("/etc/group", "root:x:0:"), "access: the group dpdk is gone"),
    "a rule that others overrule": (
        lambda host: host.tree.file(paths.UDEV_RULES, 'SUBSYSTEM=="vfio", GROUP="dpdk", MODE="0660"'),
        "does not give the devices to dpdk",
    ),
    "the rule gone": (lambda host: host.tree.remove(paths.UDEV_RULES), "does not give the devices to dpdk"),
    "a switch turned": (
        lambda host: host.tree.file(UNSAFE_INTERRUPTS, "N"),
        "kernel module: %s is N instead of Y" % UNSAFE_INTERRUPTS,
    ),
    "options gone": (lambda host: host.tree.remove(MODPROBE), "kernel module: %s is missing" % MODPROBE),
    "no bindings": (
        lambda host: host.tree.remove(BINDINGS),
        "device bindings: %s is missing: the next boot" % BINDINGS,
    ),
    **{
        path: (lambda host, path=path: host.tree.remove(path), "%s is missing: the next boot reserves nothing" % path)
        for path in (paths.HUGEPAGES_SCRIPT, paths.HUGEPAGES_UNIT, paths.HUGEPAGES_WANTS)
    },
    **{
        path: (lambda host, path=path: host.tree.remove(path), "access: %s is missing" % path)
        for path in (paths.LIMITS, *DROP_INS)
    },
    "a mount gone": (lambda host: host.tree.remove("/proc/1/mountinfo"), "hugepages: /mnt/huge is not mounted"),
    "no hot-plug": (
        lambda host: host.tree.remove(paths.HOTPLUG_PATH),
        "noiommu-hotplug.path is missing: a device that comes back is not bound",
    ),
    "not at boot": (lambda host: host.tree.remove(WANTS), "noiommu-bindings.service does not start at boot"),
    "no module for this kernel": (
        lambda host: host.module_index("vfio-pci", "vfio_iommu_type1"),
        "kernel module: noiommu is not installed for the running kernel %s" % os.uname().release,
    ),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_named_in_one_line(host: Machine, capsys: pytest.CaptureFixture, name: str) -> None:
    damage, expected = DRIFT[name]
    damage(host)
    code, line = run(host, capsys)
    assert code == 1 and line.startswith("DRIFTED: ") and expected in line


def test_a_node_given_to_somebody_else(host: Machine, capsys: pytest.CaptureFixture, node: dict[str, Any]) -> None:
    node["/dev/vfio/0"] = SimpleNamespace(st_gid=0, st_mode=0o20666)
    code, line = run(host, capsys)
    assert code == 1 and "access: /dev/vfio/0 has gid 0 and mode 0666" in line


def test_a_program_that_an_upgrade_replaced(
    host: Machine, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"group": "dpdk", "group_made": True, "users_added": [], "version": 1}
    programs = {"/usr/bin/app": {"capabilities": ["cap_ipc_lock"]}, "/usr/bin/other": {"capabilities": []}}
    host.tree.file(paths.ACCESS_RECORD, json.dumps({**record, "binaries": programs}))
    code, line = run(host, capsys)
    assert code == 1 and line == "DRIFTED: access: /usr/bin/app has lost its capabilities"
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"x")
    assert run(host, capsys)[0] == 0


def test_virtual_functions(host: Machine, capsys: pytest.CaptureFixture) -> None:
    bindings = json.loads(host.root.read_text(BINDINGS))
    host.tree.file(
        BINDINGS,
        json.dumps({**bindings, "sriov": [{"address": NIC, "vendor_device": "8086:10d3", "macs": [], "vfs": 4}]}),
    )
    host.tree.file(host.tree.real(NIC) + "/sriov_numvfs", "4")
    assert run(host, capsys)[0] == 0
    host.tree.file(host.tree.real(NIC) + "/sriov_numvfs", "0")
    assert "%s has 0 virtual functions instead of 4" % NIC in run(host, capsys)[1]


def test_pools_of_the_boot_script(host: Machine, capsys: pytest.CaptureFixture) -> None:
    assert run(host, capsys)[0] == 0
    host.tree.file(paths.HUGEPAGES_SCRIPT, BOOT_SCRIPT % (POOL, 129))
    assert "hugepages: %s: 128 pages instead of 129" % POOL in run(host, capsys)[1]


def test_pools_are_shown_with_those_of_the_nodes(host: Machine, capsys: pytest.CaptureFixture) -> None:
    pool = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/"
    for name, value in (("nr", "9"), ("surplus", "1"), ("free", "4")):
        host.tree.file("%s%s_hugepages" % (pool, name), value)
    assert json.loads(run(host, capsys, "--json")[1])["hugepages"] == [
        {"size": "2M", "node": None, "count": 128, "free": 100},
        {"size": "2M", "node": 1, "count": 8, "free": 4},
    ]


def test_the_copy_on_the_host_stays_small() -> None:
    """Every run of vfio_binding carries it there."""
    packages = {name.split("/")[1] for name in bundle.files() if name.count("/") == 2}
    assert packages == {"_base", "_host", "_policy", "_devices", "_report", "_binding"}
    assert not {"noiommu_host/_report/fleet.py", "noiommu_host/_binding/plan.py"} & set(bundle.files())


def test_the_copy_on_the_host_is_the_same_bytes_each_time() -> None:
    assert bundle.program() == bundle.program()


def test_a_new_kernel_without_modules(host: Machine, capsys: pytest.CaptureFixture) -> None:
    host.tree.file("/proc/sys/kernel/osrelease", "9.9.9")
    code, out = run(host, capsys, "--json")
    assert code == 1 and json.loads(out)["reboot_pending"] == ["the modules of the running kernel 9.9.9 are gone"]


@pytest.mark.parametrize(
    "release, present, warned",
    [
        ("999.1.0", (), ", and no headers ("),
        ("999.1.0", ("build/Makefile",), "has no module noiommu: "),
        ("999.1.0", ("modules.dep",), ""),
        ("1.1.0", (), ""),  # it is older: nobody boots it by accident
    ],
)
def test_a_kernel_installed_since_without_the_module(
    host: Machine, capsys: pytest.CaptureFixture, release: str, present: tuple[str, ...], warned: str
) -> None:
    host.tree.dir("/lib/modules/%s/kernel" % release)
    for name in present:
        host.tree.file("/lib/modules/%s/%s" % (release, name), "updates/dkms/noiommu.ko:\n")
    code, out = run(host, capsys, "--json")
    found = json.loads(out)["warnings"]
    assert code == 0 and len(found) == bool(warned), "it is a warning, and no drift"
    _code, line = run(host, capsys)
    assert line.startswith("OK: ") and ("; WARNING: the installed kernel %s" % release in line) == bool(warned)
    assert not warned or warned in found[0]


def test_a_backend_that_needs_no_module_of_ours(host: Machine, capsys: pytest.CaptureFixture) -> None:
    bindings = json.loads(host.root.read_text(BINDINGS) or "")
    host.tree.file(BINDINGS, json.dumps({**bindings, "backend": "iommu"}))
    host.tree.dir("/lib/modules/999.1.0/kernel")
    _code, out = run(host, capsys, "--json")
    assert json.loads(out)["warnings"] == []


def test_after_the_date(
    host: Machine, capsys: pytest.CaptureFixture, now: datetime.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "utc_now", lambda: now + datetime.timedelta(days=1))
    code, line = run(host, capsys)
    assert code == 1 and line.startswith("EXPIRED: Insecure passthrough was accepted until 2026-03-01")
    host.unbind(NIC)
    code, line = run(host, capsys)
    assert code == 1 and "bind to vfio-pci" in line
    assert line.startswith("DRIFTED: Insecure passthrough was accepted until")


def test_nothing_deployed(machine: Machine, capsys: pytest.CaptureFixture) -> None:
    machine.tree.file("/proc/sys/kernel/tainted", "0")
    machine.tree.file("/proc/sys/kernel/osrelease", "6.1.0")
    assert run(machine, capsys) == (0, "OK: 0 devices; kernel taint 0")


@pytest.mark.parametrize(
    "path, text",
    [
        (BINDINGS, "{"),
        (BINDINGS, '{"version": 1}'),
        (paths.ACCESS_RECORD, "[]"),
        ("/proc/sys/kernel/tainted", "what"),
    ],
)
def test_what_cannot_be_known_is_neither_well_nor_drift(
    host: Machine, capsys: pytest.CaptureFixture, tmp_path: Path, path: str, text: str
) -> None:
    host.tree.file(path, text)
    code, line = run(host, capsys)
    assert code == 2 and line.startswith("UNKNOWN: ")
    code, out = run(host, capsys, "--json", "--prometheus", str(tmp_path / "noiommu.prom"))
    assert code == 2 and json.loads(out)["state"] == "unknown"
    assert 'noiommu_state{state="unknown"} 1\n' in (tmp_path / "noiommu.prom").read_text()


@pytest.mark.parametrize(
    "path, others",
    [
        (BINDINGS, ["/mnt/huge is not mounted"]),
        (paths.ORIGINALS, ["/mnt/huge is not mounted", "bind to vfio-pci"]),
        (paths.ACCESS_RECORD, ["/mnt/huge is not mounted", "bind to vfio-pci"]),
        (paths.HUGETLB_MOUNTS_RECORD, ["bind to vfio-pci"]),
    ],
)
def test_one_damaged_record_hides_nothing_else(
    host: Machine, capsys: pytest.CaptureFixture, path: str, others: list[str]
) -> None:
    host.unbind(NIC)
    host.tree.remove("/proc/1/mountinfo")
    host.tree.file(path, "{")
    code, line = run(host, capsys)
    assert code == 2 and line.startswith("UNKNOWN: ") and "%s: " % path in line
    assert all(other in line for other in others), line
    assert path != BINDINGS or "is missing: the next boot" not in line


def test_metrics_are_written_whole(host: Machine, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    target = tmp_path / "noiommu.prom"
    assert run(host, capsys, "--prometheus", str(target))[0] == 0
    text = target.read_text()
    assert 'noiommu_state{state="ok"} 1\n' in text and "noiommu_insecure 1\n" in text and "enrol" not in text
    assert 'noiommu_hugepages{size="2M",node=""} 128\n' in text
    assert oct(target.stat().st_mode & 0o777) == "0o644"
    assert [name for name in os.listdir(tmp_path) if name.startswith(".noiommu-")] == []


def test_metrics_that_cannot_be_written_are_an_error(
    host: Machine, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, line = run(host, capsys, "--prometheus", str(tmp_path / "file" / "x.prom"))
    assert code == 2 and "Could not write" in line


def test_only_root_can_tell(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert verify.main([], Root()) == 2
    assert "UNKNOWN: Only root" in capsys.readouterr().out


def test_usage(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        verify.main(["--nonsense"])
    assert caught.value.code == 2
    assert "usage: noiommu-verify" in capsys.readouterr().err


def test_the_command_is_installed_and_runs_the_installed_copy(host: Machine) -> None:
    command = host.tree.at(VERIFY)
    assert oct(command.stat().st_mode & 0o777) == "0o755"
    text = command.read_text()
    assert text.startswith("#!/bin/sh\n") and '-I -B %s verify "$@"\n' % PROGRAM in text
    argv = [sys.executable, "-I", "-B", str(host.tree.at(PROGRAM)), "verify"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    # It looks at the machine that runs this test.
    assert (done.returncode, done.stdout[:14]) in ((0, "OK: 0 devices;"), (2, "UNKNOWN: Only ")), done
    BindingChange(host.kernel, GuardContext(host.root), Request([])).apply()
    assert not command.exists()


@pytest.mark.parametrize(
    "program, code", [("sys.exit(0)", 0), ("sys.exit(101)", 1), ("sys.exit(1)", 2), ("sys.exit(2)", 2), ("1 / 0", 2)]
)
def test_the_command_says_drifted_only_if_the_program_does(
    host: Machine, tmp_path: Path, program: str, code: int
) -> None:
    """Python's own failures exit with 1."""
    installed = tmp_path / "program.py"
    installed.write_text("import sys\n" + program)
    command = tmp_path / "noiommu-verify"
    command.write_text(host.tree.at(VERIFY).read_text().replace(PROGRAM, str(installed)))
    done = subprocess.run(["/bin/sh", str(command)], capture_output=True, check=False)
    assert done.returncode == code, done.stderr


def test_drift_has_a_code_of_its_own_in_the_program(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter((verify.OK, verify.DRIFTED, verify.UNKNOWN))
    monkeypatch.setattr(verify, "main", lambda argv: next(codes))
    assert [verify.program([]) for _code in range(3)] == [0, 101, 2]


@pytest.mark.parametrize(
    "entry, seen",
    [
        ({"address": 7}, "devices[1].address: expected a PCI address, found 7"),
        ({"vendor_device": None}, "devices[1].vendor_device: expected vendor:device, found nothing"),
        ({"macs": "52:54:00:00:00:01"}, "devices[1].macs: expected a list"),
        ({"vf": {"pf": NIC}}, "devices[1].vf: the key macs is missing"),
    ],
)
def test_one_damaged_entry_is_named_and_the_others_are_compared(
    host: Machine, capsys: pytest.CaptureFixture, entry: dict[str, Any], seen: str
) -> None:
    bindings = json.loads(host.tree.at(BINDINGS).read_text())
    bindings["devices"][1].update(entry)
    host.tree.file(BINDINGS, json.dumps(bindings))
    code, record = run(host, capsys, "--json")
    assert code == 1
    (drift,) = json.loads(record)["drift"]
    assert drift["concern"] == "device bindings" and seen in drift["changes"][0]
    assert [device["address"] for device in json.loads(record)["devices"]] == [NIC]


@pytest.mark.parametrize("btime", ["99999999999999999", "-99999999999999999", "9" * 5000, "soon", ""])
def test_a_strange_boot_time_is_no_failure(host: Machine, capsys: pytest.CaptureFixture, btime: str) -> None:
    host.tree.file("/proc/stat", "btime %s\n" % btime)
    host.tree.file("/dev/kmsg", "6,0,12,-;noiommu: loading out-of-tree module taints kernel.\n")
    assert run(host, capsys)[0] == 0


def test_a_failure_of_our_own_is_not_drift(
    host: Machine, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "Verify", lambda root: 1 / 0)
    code, said = run(host, capsys)
    assert code == 2 and said.startswith("UNKNOWN: this host could not be compared: ZeroDivisionError")


def test_a_container_that_the_group_cannot_open_is_drift(host: Machine, capsys: pytest.CaptureFixture) -> None:
    host.tree.file("/dev/vfio/vfio")
    host.tree.at("/dev/vfio/vfio").chmod(0o666)
    assert run(host, capsys)[0] == 0
    host.tree.at("/dev/vfio/vfio").chmod(0o600)
    assert "access: /dev/vfio/vfio has mode 0600: dpdk cannot use its devices" in run(host, capsys)[1]


def test_a_node_that_is_given_back_meanwhile_is_no_failure(host: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(access, "granted_nodes", lambda root: ["/dev/vfio/71", "/dev/vfio/0"])
    assert list(access.nodes(host.root)) == ["/dev/vfio/0"]


def test_a_record_of_another_shape_is_not_drift(host: Machine, capsys: pytest.CaptureFixture) -> None:
    host.tree.file(
        paths.ACCESS_RECORD, json.dumps({"group": "dpdk", "users_added": ["ann"], "version": 1, "binaries": []})
    )
    assert run(host, capsys)[0] == 2
