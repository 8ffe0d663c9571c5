# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would make a later step impossible, each refused before anything changes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import HANGING
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight import obstacles
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.obstacles import Steps
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:04:00.0"
ROOT = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
APT, DNF = "/etc/apt/sources.list", "/etc/yum.repos.d/fedora.repo"
STEPS = Steps("dkms", True, False, True, False, ["dkms"])


@pytest.fixture
def host(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A host on which nothing stands in the way."""
    build_host(tree)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", KERNEL, "#1", "x86_64")))
    tree.file("/lib/modules/%s/modules.dep" % KERNEL, "kernel/drivers/vfio/pci/vfio-pci.ko:")
    tree.file("/usr/sbin/modprobe")
    tree.dir("/run/systemd/system")
    tree.file("/proc/1/mountinfo", ROOT)
    tree.file("/proc/sys/kernel/tainted", "0")
    tree.file(APT, "deb http://deb.debian.org/debian bookworm main\n")
    tree.pci(NIC, driver="e1000e")
    return tree


def codes(host: Tree, steps: Steps = STEPS) -> list[str]:
    found = obstacles.refusals(host.root, steps)
    assert all(refusal.message and refusal.evidence and refusal.remedy for refusal in found)
    return [refusal.code for refusal in found]


def verdict(host: Tree) -> dict[str, Any]:
    context = GuardContext(host.root, NetState([], []))
    return Preflight(host.root, context, Declaration([{"address": NIC}], [], accept_unsafe=True)).report([])["verdict"]


def test_nothing_stands_in_the_way(host: Tree) -> None:
    before = host.content()
    assert codes(host) == [] and verdict(host)["refusals"] == []
    assert host.content() == before


@pytest.mark.parametrize(
    "place", ["/etc", "/usr", "/usr/local/lib", "/var", "/var/lib/dkms", "/lib/modules", "/usr/src"]
)
@pytest.mark.parametrize("options", ["ro,relatime shared:1 - ext4 /dev/sdb1 rw", "rw - erofs none ro"])
def test_a_filesystem_that_is_read_only(host: Tree, place: str, options: str) -> None:
    host.dir(place)
    host.file("/proc/1/mountinfo", ROOT + "30 22 8:17 / %s %s" % (place, options))
    assert set(codes(host)) == {"read_only"}
    (first, *_others) = obstacles.refusals(host.root, STEPS)
    assert "is mounted read-only on %s" % place in first.evidence[0]


def test_one_that_is_read_only_as_a_whole_is_said_once_for_each_step(host: Tree) -> None:
    host.file("/proc/1/mountinfo", ROOT.replace("rw,relatime", "ro"))
    files, modules = obstacles.refusals(host.root, STEPS)
    assert "/etc, /usr/local/lib/noiommu, /var/lib/noiommu" in files.message and "/usr/src" in modules.message
    host.file("/proc/1/mountinfo", ROOT + "30 22 8:17 / /usr/src ro - ext4 /dev/sdb1 ro")
    assert codes(host, STEPS._replace(is_prebuilt=True)) == [], "what is built elsewhere needs no source"
    host.file("/lib/modules/%s/modules.dep" % KERNEL, "updates/dkms/noiommu.ko:\nkernel/vfio-pci.ko:")
    assert codes(host) == [], "and what is installed needs no build"


@pytest.mark.parametrize("field, said", [("f_bavail", "KiB free"), ("f_favail", "more files can be made")])
def test_a_filesystem_that_is_full(host: Tree, monkeypatch: pytest.MonkeyPatch, field: str, said: str) -> None:
    real = os.statvfs

    def full(path: str) -> Any:
        values = {name: getattr(real(path), name) for name in ("f_bavail", "f_frsize", "f_favail", "f_files")}
        return type("Stats", (), {**values, "f_files": 1000, "f_favail": 1000, field: 3})

    monkeypatch.setattr(os, "statvfs", full)
    assert codes(host, STEPS._replace(backend=None, module_required=False)) == ["no_space"]
    assert said in obstacles.refusals(host.root, STEPS)[0].evidence[0]
    assert "no_space" in [refusal["code"] for refusal in verdict(host)["refusals"]]


def test_no_room_for_a_build(host: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = type("Stats", (), {"f_bavail": 5 << 20, "f_frsize": 1, "f_favail": 0, "f_files": 0})
    monkeypatch.setattr(os, "statvfs", lambda path: stats)
    assert codes(host) == ["no_space"]
    assert "to build" in obstacles.refusals(host.root, STEPS)[0].message


def test_no_systemd(host: Tree) -> None:
    host.remove("/run/systemd")
    assert codes(host) == ["no_systemd"] and codes(host, STEPS._replace(at_boot=False)) == []


def test_modules_cannot_be_loaded_any_more(host: Tree) -> None:
    host.file("/proc/sys/kernel/modules_disabled", "1")
    assert codes(host) == ["modules_disabled"] and codes(host, STEPS._replace(backend="iommu")) == ["modules_disabled"]
    host.dir("/sys/module/vfio_pci")
    assert codes(host, STEPS._replace(backend="iommu")) == [], "what is loaded stays"
    host.file("/proc/sys/kernel/modules_disabled", "0")
    assert codes(host) == []


def test_no_modprobe(host: Tree) -> None:
    host.remove("/usr/sbin/modprobe")
    assert codes(host) == ["no_modprobe"]


@pytest.mark.parametrize(
    "path, text, is_blocked",
    [
        ("/etc/modprobe.d/cis.conf", "# hardening\ninstall vfio_pci /bin/false\n", True),
        ("/usr/lib/modprobe.d/cis.conf", "install  vfio-pci /usr/bin/true # nothing", True),
        ("/etc/modprobe.d/cis.conf", "install noiommu /bin/true", True),
        ("/proc/cmdline", "ro module_blacklist=nouveau,vfio-pci quiet", True),
        ("/etc/modprobe.d/a.conf", "install vfio-pci /sbin/modprobe --ignore-install vfio-pci", False),
        ("/etc/modprobe.d/a.conf", "blacklist vfio-pci\ninstall usb-storage /bin/false", False),
        ("/etc/modprobe.d/a.conf.old", "install vfio-pci /bin/false", False),
        ("/proc/cmdline", "modprobe.blacklist=vfio-pci module_blacklist=nouveau", False),
    ],
)
def test_a_module_that_somebody_has_blocked(host: Tree, path: str, text: str, is_blocked: bool) -> None:
    host.file(path, text)
    assert codes(host) == (["module_blocked"] if is_blocked else [])
    if is_blocked:
        (refusal,) = obstacles.refusals(host.root, STEPS)
        assert refusal.evidence[0].startswith(path)
        for module in ("vfio_pci", "noiommu", "vfio_iommu_type1"):
            host.dir("/sys/module/" + module)
        assert codes(host) == []


@pytest.mark.parametrize("release, machine", [("5.10.0-33-amd64", "x86_64"), ("6.0.9", "x86_64"), (KERNEL, "riscv64")])
def test_a_kernel_for_which_the_module_is_not(
    host: Tree, monkeypatch: pytest.MonkeyPatch, release: str, machine: str
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, "#1", machine)))
    host.file("/proc/sys/kernel/osrelease", release)
    assert (
        codes(host) == ["kernel_excluded"]
        and codes(host, STEPS._replace(backend="builtin", module_required=False)) == []
    )


def test_the_limits_are_those_of_the_source() -> None:
    text = Path(__file__).parents[5].joinpath("kmod/dkms.conf").read_text()
    assert 'BUILD_EXCLUSIVE_KERNEL_MIN="%s"' % obstacles.OLDEST_KERNEL in text
    assert 'BUILD_EXCLUSIVE_ARCH="^(%s)$"' % "|".join(obstacles.MACHINES) in text
    pattern = re.search(r'BUILD_EXCLUSIVE_KERNEL="(.*)"', text).group(1)
    assert [bool(re.match(pattern, version)) for version in ("5.19.1", "6.0.9", "6.1.0", "6.12.1", "7.0.1")] == [
        False,
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "path, text, is_on",
    [
        (APT, "# deb http://deb.debian.org/debian bookworm main\ndeb-src http://x y z\n", False),
        ("/etc/apt/sources.list.d/a.list", "deb [signed-by=/k] http://deb.debian.org/debian bookworm main", True),
        ("/etc/apt/sources.list.d/a.sources", "Types: deb deb-src\nURIs: http://x\nSuites: trixie", True),
        ("/etc/apt/sources.list.d/a.sources", "Enabled: no\nTypes: deb\nURIs: http://x", False),
        ("/etc/apt/sources.list.d/a.sources", "Enabled: no\nTypes: deb\n\nTypes: deb\nURIs: http://x", True),
        ("/etc/apt/sources.list.d/a.list.dpkg-old", "deb http://x y z", False),
    ],
)
def test_a_host_without_a_repository(host: Tree, path: str, text: str, is_on: bool) -> None:
    host.remove(APT)
    host.file(path, text)
    assert codes(host) == ([] if is_on else ["no_repository"])
    assert codes(host, STEPS._replace(packages=[])) == []


@pytest.mark.parametrize(
    "text, is_on",
    [
        ("[fedora]\nenabled=1", True),
        ("[fedora]\nname=x", True),
        ("[a]\nenabled = 0\n[b]\nenabled=0", False),
        ("", False),
    ],
)
def test_dnf_s_repositories(host: Tree, text: str, is_on: bool) -> None:
    host.file("/etc/os-release", "ID=fedora")
    host.file(DNF, text)
    assert codes(host) == ([] if is_on else ["no_repository"])


def test_a_device_that_a_process_drives(host: Tree) -> None:
    host.dir(host.real(NIC) + "/uio/uio0")
    host.file("/dev/uio0")
    host.file("/proc/99/comm", "testpmd")
    host.dir("/proc/99/fd")
    host.at("/proc/99/fd/5").symlink_to("/dev/uio0")
    (refusal,) = verdict(host)["refusals"]
    assert refusal["code"] == "in_use" and "process 99 (testpmd)" in refusal["evidence"][0]


def held(host: Tree, node: str) -> None:
    """Have a process that holds a device file."""
    host.file(node)
    host.file("/proc/99/comm", "testpmd")
    host.dir("/proc/99/fd")
    host.at("/proc/99/fd/5").symlink_to(node)


@pytest.mark.parametrize(
    "group_name, module, hint, refused",
    [
        ("vfio-noiommu", False, True, True),  # from the backend builtin to dkms
        ("noiommu", True, True, False),
        ("noiommu", True, None, False),
        ("noiommu", True, False, True),  # the hint is only given while the group is made
    ],
)
def test_a_held_device_of_vfio_that_has_to_be_bound_anew(
    host: Tree, group_name: str, module: bool, hint: bool | None, refused: bool
) -> None:
    device = "0000:05:00.0"
    host.pci(device, driver="vfio-pci")
    host.file(host.real(device) + "/driver_override", "vfio-pci")
    host.group(7, device, name=group_name, node="noiommu-" + device if module else None)
    if module:
        host.dir("/sys/class/iommu/noiommu-%s/intel-iommu/cap" % device)
    held(host, "/dev/vfio/noiommu-7" if group_name == "vfio-noiommu" else "/dev/vfio/7")
    declared = Declaration([{"address": device}], [], backend="dkms", accept_unsafe=True, dpdk_pa_hint=hint)
    found = Preflight(host.root, GuardContext(host.root, NetState([], [])), declared).report([])["verdict"]["refusals"]
    assert [refusal["code"] for refusal in found] == ["in_use"] * refused
    assert not refused or "process 99 (testpmd)" in found[0]["evidence"][0]


def test_a_held_virtual_function_that_another_number_removes(host: Tree) -> None:
    host.pci("0000:06:00.0", driver="ixgbe")
    host.net("ens6", "0000:06:00.0", "52:54:00:00:00:06")
    host.sriov("0000:06:00.0", number=1)
    function = host.vf("0000:06:00.0", 0)
    host.group(8, function)
    held(host, "/dev/vfio/8")
    declared = Declaration([], [{"pf": "ens6", "vfs": 2}], accept_unsafe=True)
    found = Preflight(host.root, GuardContext(host.root, NetState([], [])), declared).report([])["verdict"]["refusals"]
    assert "in_use" in [refusal["code"] for refusal in found], found


def test_a_device_whose_unbind_still_hangs(host: Tree) -> None:
    host.file("/proc/7/stat", "7 (python3) " + " ".join(["0"] * 19 + ["4711"]))
    host.file("%s/%s" % (HANGING, NIC), "7 4711\n")
    assert [refusal["code"] for refusal in verdict(host)["refusals"]] == ["unbind_hangs"]
