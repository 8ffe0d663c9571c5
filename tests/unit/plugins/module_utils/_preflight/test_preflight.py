# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import json
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.originals import Originals
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import taint
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import NetState
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import (
    PARTS,
    Declaration,
    Preflight,
    read_parameters,
)
from ansible_collections.baremetal.noiommu.plugins.modules import noiommu_info
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:04:00.0"
DISK = "0000:05:00.0"
MAC = "52:54:00:00:00:04"
EFIVARS = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
ARGUMENTS = {
    "devices": [],
    "sriov": [],
    "accept_unsafe": True,
    "hugepages": None,
    "hugepage_mounts": None,
    "access": None,
    "host_memory": None,
}
MEANING = "can read and write all memory of this host"


@pytest.fixture
def host(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A stock Debian host without an IOMMU, with a spare network card and a mounted disk."""
    build_host(tree)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", KERNEL, "#1", "x86_64")))
    for kernel in (KERNEL, OTHER):
        tree.file("/lib/modules/%s/modules.dep" % kernel, "kernel/drivers/vfio/pci/vfio-pci.ko:")
        tree.file("/boot/config-" + kernel, "CONFIG_VFIO=m\n# CONFIG_VFIO_NOIOMMU is not set")
    tree.file("/usr/bin/gcc")
    tree.file("/sbin/modprobe")
    tree.file("/etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main")
    tree.dir("/run/systemd/system")
    tree.file("/proc/sys/kernel/tainted", "0")
    tree.pci("0000:00:00.0", "8086:29c0", "060000")
    tree.pci(NIC, "8086:10d3", "020000", "e1000e", numa_node=1)
    tree.net("eth1", NIC, MAC)
    real = tree.pci(DISK, "1b36:0010", "010802", "nvme")
    tree.block("nvme0n1", real + "/nvme/nvme0", "259:0")
    tree.mounts(("259:0", "/", "/dev/nvme0n1"))
    tree.pci("0000:06:00.0", "8086:1234", "0c0330")
    return tree


def report(tree: Tree, *devices: dict[str, Any], backend: str = "auto", accept: bool = True) -> dict[str, Any]:
    context = GuardContext(tree.root, NetState([], []))
    return Preflight(tree.root, context, Declaration(list(devices), [], backend, accept)).report()


def codes(result: dict[str, Any]) -> list[str]:
    for refusal in result["verdict"]["refusals"]:
        assert refusal["message"] and refusal["evidence"] and refusal["remedy"]
    return [refusal["code"] for refusal in result["verdict"]["refusals"]]


def test_a_stock_host_is_served_by_dkms_if_that_is_accepted(host: Tree) -> None:
    before = host.content()
    result = report(host, {"mac": MAC})
    assert result["verdict"] == {
        "backend": "dkms",
        "module_required": True,
        "safe": False,
        "ok": True,
        "refusals": [],
        "warnings": [],
        "reboot_required": False,
    }
    assert result["kernel"]["release"] == KERNEL and result["kernel"]["config_vfio_noiommu"] == "n"
    assert result["iommu"]["state"] == "absent"
    assert result["os"] == {"id": "debian", "version_id": "12", "family": "debian"}
    assert result["packages_missing"] == []
    assert host.content() == before


def test_insecure_mode_is_refused_in_plain_words_unless_accepted(host: Tree) -> None:
    result = report(host, {"mac": MAC}, accept=False)
    assert codes(result) == ["unsafe_not_accepted"]
    assert not result["verdict"]["ok"] and result["verdict"]["backend"] == "none"
    message = result["verdict"]["refusals"][0]["message"]
    assert MEANING in message and "tainted" in message and "nothing confines" in message


def test_a_working_iommu_is_safe_without_any_consent(host: Tree) -> None:
    host.group(3, NIC)
    result = report(host, {"mac": MAC}, accept=False)
    assert result["verdict"]["ok"] and result["verdict"]["safe"] and result["verdict"]["backend"] == "iommu"
    assert result["devices"][0]["safety"] == "isolated"


def test_a_pinned_insecure_backend_beside_an_iommu_is_refused(host: Tree) -> None:
    host.group(3, NIC)
    assert codes(report(host, {"mac": MAC}, backend="dkms")) == ["iommu_active"]


def test_a_pinned_iommu_that_is_not_there_is_refused(host: Tree) -> None:
    assert codes(report(host, {"mac": MAC}, backend="iommu")) == ["backend_unavailable"]


def test_a_group_shared_with_the_host_is_refused(host: Tree) -> None:
    host.group(3, NIC, DISK)
    assert codes(report(host, {"mac": MAC})) == ["group_not_viable"]


@pytest.mark.parametrize("accept", [True, False])
def test_an_iommu_that_is_off_is_better_turned_on(host: Tree, accept: bool) -> None:
    host.file("/sys/firmware/acpi/tables/DMAR", "x")
    result = report(host, {"mac": MAC}, accept=accept)
    assert result["iommu"]["state"] == "firmware_off"
    assert "intel_iommu=on" in result["verdict"]["warnings"][0]


def test_a_kernel_with_vfio_noiommu_is_served_by_builtin(host: Tree) -> None:
    host.file("/boot/config-" + KERNEL, "CONFIG_VFIO=m\nCONFIG_VFIO_NOIOMMU=y\nCONFIG_X=y")
    result = report(host, {"mac": MAC})
    assert (result["verdict"]["backend"], result["kernel"]["config_vfio_noiommu"]) == ("builtin", "y")


def test_every_reason_is_given_at_once(host: Tree) -> None:
    host.file("/sys/kernel/security/lockdown", "none [integrity] confidentiality")
    result = report(host, {"address": "0000:99:00.0"}, {"address": DISK}, {"vendor_device": "1b36:0010"}, accept=False)
    assert codes(result) == [
        "lockdown",
        "unsafe_not_accepted",
        "selector",
        "selector",
        "guarded_device",
        "key_not_enrolled",
    ]
    assert result["lockdown"] == "integrity"


def test_a_device_in_use_is_refused_by_any_selector(host: Tree) -> None:
    assert codes(report(host, {"address": DISK})) == ["guarded_device"]
    assert codes(report(host, {"vendor_device": "1b36:0010"})) == ["guarded_device"]


def test_without_selectors_the_likely_devices_are_listed_with_their_guards(host: Tree) -> None:
    result = report(host)
    assert [(device["address"], device["class"], len(device["guards"])) for device in result["devices"]] == [
        (NIC, "network", 0),
        (DISK, "storage", 1),
    ]
    assert result["verdict"]["ok"]


def test_a_device_is_described(host: Tree) -> None:
    assert report(host, {"mac": MAC})["devices"] == [
        {
            "address": NIC,
            "selected": True,
            "vendor_device": "8086:10d3",
            "class": "network",
            "class_code": "020000",
            "driver": "e1000e",
            "interfaces": ["eth1"],
            "mac": MAC,
            "numa_node": 1,
            "group": None,
            "chardev": None,
            "safety": "none",
            "safety_reason": "no IOMMU group: VFIO cannot hand this device out",
            "write_combining": [],
            "guards": [],
        }
    ]


def test_a_device_that_was_taken_is_still_known_by_its_mac(host: Tree) -> None:
    originals = Originals()
    report_before = report(host, {"mac": MAC})["devices"][0]
    originals.devices[NIC] = {
        "vendor_device": "8086:10d3",
        "driver": "e1000e",
        "driver_override": None,
        "interfaces": [{"name": "eth1", "mac": MAC, "up": False}],
    }
    originals.save(host.root)
    host.remove("/sys/class/net/eth1")
    host.remove(host.real(NIC) + "/net")
    host.bind(NIC, "vfio-pci")
    host.group(0, NIC, name="noiommu", node="noiommu-" + NIC)
    host.file("/dev/vfio/0")
    found = report(host, {"mac": MAC})["devices"][0]
    assert found["mac"] == report_before["mac"] and found["interfaces"] == []
    assert (found["group"], found["chardev"], found["safety"]) == (0, "/dev/vfio/0", "unsafe")


def test_missing_packages_are_named_and_stop_nothing(host: Tree) -> None:
    host.remove("/usr")
    result = report(host, {"mac": MAC})
    assert result["packages_missing"] == ["dkms", "gcc", "linux-headers-" + KERNEL, "make"]
    assert result["verdict"]["ok"]


def test_another_kernel_without_headers_is_a_warning(host: Tree) -> None:
    host.remove("/lib/modules/%s/build" % OTHER)
    assert "linux-headers-" + OTHER in report(host, {"mac": MAC})["verdict"]["warnings"][0]


def test_installed_kernels_say_whether_they_have_the_module(host: Tree) -> None:
    host.file("/lib/modules/%s/modules.dep" % OTHER, "updates/dkms/noiommu.ko.xz:\nkernel/vfio-pci.ko:")
    assert report(host)["kernel"]["installed"] == [
        {"release": KERNEL, "running": True, "headers": True, "module_installed": False},
        {"release": OTHER, "running": False, "headers": True, "module_installed": True},
    ]


def test_a_kernel_without_vfio_pci_is_refused(host: Tree) -> None:
    host.file("/lib/modules/%s/modules.dep" % KERNEL, "kernel/a.ko:")
    result = report(host, {"mac": MAC})
    assert codes(result) == ["vfio_missing"] and not result["verdict"]["reboot_required"]


def test_a_kernel_whose_modules_were_removed_needs_a_reboot(host: Tree) -> None:
    host.remove("/lib/modules/" + KERNEL)
    result = report(host, {"mac": MAC})
    assert codes(result) == ["vfio_missing"] and result["verdict"]["reboot_required"]
    assert "Reboot" in result["verdict"]["refusals"][0]["remedy"]


def test_a_kernel_that_does_not_trust_the_key_is_refused_with_the_way_to_enrol_it(host: Tree) -> None:
    host.file("/sys/module/module/parameters/sig_enforce", "Y")
    host.dir("/sys/firmware/efi")
    host.file("/var/lib/dkms/mok.key", "secret")
    host.file("/var/lib/dkms/mok.pub", b"\x06\x03\x55\x1d\x0e\x04\x04\x04\x02\xab\xcd")
    before = host.content()
    result = report(host, {"mac": MAC})
    assert codes(result) == ["key_not_enrolled"]
    assert "mokutil --import /var/lib/dkms/mok.pub" in result["verdict"]["refusals"][0]["remedy"]
    assert result["module_signing"]["enrolled"] == "no" and host.content() == before
    host.file("/proc/keys", "0a I--- 1 perm 1f030000 0 0 asymmetri DKMS module signing key: abcd: X509.rsa abcd []")
    result = report(host, {"mac": MAC})
    assert result["verdict"]["ok"] and result["module_signing"]["enrolled"] == "yes"


def test_a_locked_down_kernel_is_told_of_both(host: Tree) -> None:
    host.file(EFIVARS, b"\x06\0\0\0\1")
    host.file("/sys/kernel/security/lockdown", "none [integrity] confidentiality")
    result = report(host, {"mac": MAC})
    assert codes(result) == ["lockdown", "key_not_enrolled"]
    assert "Secure Boot: on" in result["verdict"]["refusals"][0]["evidence"]
    assert "does not suffice" in result["verdict"]["refusals"][1]["remedy"]
    assert result["module_signing"]["enforced"] and result["secure_boot"]


def test_a_prebuilt_module_needs_no_packages_and_no_key_here(host: Tree) -> None:
    host.remove("/usr")
    host.file("/sys/module/module/parameters/sig_enforce", "Y")
    context = GuardContext(host.root, NetState([], []))
    declared = Declaration([{"mac": MAC}], [], accept_unsafe=True, kmod_build="prebuilt")
    result = Preflight(host.root, context, declared).report()
    assert result["verdict"]["ok"] and result["packages_missing"] == [] and result["verdict"]["warnings"] == []
    assert result["prebuilt_kernels"] == [KERNEL, OTHER] and result["module_signing"]["enrolled"] == "unknown"
    assert report(host, {"mac": MAC})["prebuilt_kernels"] == []
    host.dir("/lib/modules/a copy/kernel")
    assert Preflight(host.root, context, declared).report()["prebuilt_kernels"] == [KERNEL, OTHER]


def test_forged_interrupts_beside_an_iommu_are_a_warning(host: Tree) -> None:
    host.group(3, NIC)
    host.file("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y")
    assert "allow_unsafe_interrupts" in report(host, {"mac": MAC})["verdict"]["warnings"][0]


def test_only_what_is_asked_for_is_gathered(host: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = Declaration([{"mac": MAC}], [], accept_unsafe=True)
    full = report(host, {"mac": MAC})
    assert set(full) == {*PARTS, "verdict"}
    monkeypatch.setattr(taint, "report", lambda root: pytest.fail("nobody asked for the taint"))
    part = Preflight(host.root, GuardContext(host.root, NetState([], [])), declared).report(["devices", "os"])
    assert part == {name: full[name] for name in ("devices", "os", "verdict")}


def test_the_loaded_module_is_described_without_what_cannot_be_read(host: Tree) -> None:
    host.file("/sys/module/noiommu/version", "1.0.0")
    host.file("/sys/module/noiommu/parameters/dpdk_pa_hint", "Y")
    host.file("/sys/module/noiommu/parameters/add", "secret")
    host.at("/sys/module/noiommu/parameters/add").chmod(0o200)
    assert report(host)["module"] == {"loaded": True, "version": "1.0.0", "parameters": {"dpdk_pa_hint": "Y"}}
    assert read_parameters(host.root, "absent") is None


def test_headers_of_kernels_to_come_are_among_the_missing_packages(host: Tree) -> None:
    host.file("/var/lib/dpkg/info/linux-image-amd64.list")
    assert report(host)["packages_missing"] == ["linux-headers-amd64"]
    declared = Declaration(devices=[], sriov=[], kmod_build="prebuilt")
    prebuilt = Preflight(host.root, GuardContext(host.root, NetState([], [])), declared)
    assert prebuilt.report()["packages_missing"] == []


def test_a_device_that_dpdk_service_binds_elsewhere_is_named(host: Tree) -> None:
    host.file("/etc/dpdk/interfaces", "# pci %s igb_uio\npci %s uio_pci_generic\npci 0000:99:00.0 igb_uio" % (NIC, NIC))
    assert report(host, {"address": NIC})["verdict"]["warnings"] == []
    host.file("/etc/systemd/system/multi-user.target.wants/dpdk.service")
    (text,) = report(host, {"address": NIC})["verdict"]["warnings"]
    assert text.startswith("/etc/dpdk/interfaces, line 2, has dpdk.service bind %s to uio_pci_generic." % NIC)
    host.file("/etc/dpdk/interfaces", "pci %s vfio-pci\npci %s\nplatform x y" % (NIC, NIC))
    assert report(host, {"address": NIC})["verdict"]["warnings"] == []


LATER = [
    ("access", {"group": "dataplane", "users": ["nobody-here"]}, "user", "There is no user nobody-here on this host."),
    ("access", {"users": ["root"]}, "group", "The grants name no group."),
    (
        "access",
        {"group": "dataplane", "services": [{"name": "ovs"}]},
        "wrapper",
        "The service ovs.service runs nothing itself.",
    ),
    (
        "access",
        {"group": "dataplane", "binaries": [{"path": "/usr/bin/cat"}]},
        "binary",
        "/usr/bin/cat is not a data plane application.",
    ),
    ("access", {"group": "Data Plane"}, "group", "'Data Plane' is not a group name."),
    ("access", {"group": "dataplane", "memlock": "8G"}, "memlock", "'8G' is not an amount of locked memory."),
    (
        "access",
        {"group": "dataplane", "services": [{"name": "fwd"}]},
        "service",
        "There is no systemd service fwd.service on this host.",
    ),
    ("hugepages", [{"size": "3M", "count": 1}], "pool", "This host has no hugetlb pages of size 3M."),
    ("hugepages", [{"size": "2M", "count": 1, "node": 7}], "pool", "This host has no NUMA node 7."),
    ("hugepages", [{"size": "much", "count": 1}], "pool", "'much' is not a page size."),
    ("hugepages", [{"size": "2M", "count": 500}], "host_memory", "too little memory for the host itself"),
    ("hugepage_mounts", [{"path": "mnt", "size": "2M"}], "mount", ""),
]


@pytest.mark.parametrize("name, value, code, message", LATER)
def test_what_a_later_step_would_refuse_is_part_of_the_verdict(
    host: Tree, name: str, value: Any, code: str, message: str
) -> None:
    host.file("/etc/group", "root:x:0:")
    host.file("/etc/passwd", "root:x:0:0::/root:/bin/sh")
    host.file("/usr/lib/systemd/system/ovs.service", "[Service]\nExecStart=/bin/true")
    host.file("/usr/bin/cat", b"\x7fELF")
    host.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")
    host.file("/proc/meminfo", "MemTotal: 1048576 kB")
    before = host.content()
    result = noiommu_info.declared({**ARGUMENTS, name: value})
    refusals = Preflight(host.root, GuardContext(host.root, NetState([], [])), result).report()["verdict"]["refusals"]
    assert [refusal["code"] for refusal in refusals] == [code]
    assert message in refusals[0]["message"] and refusals[0]["remedy"]
    assert refusals[0]["evidence"][0] == "declared by noiommu_" + name
    assert host.content() == before


def test_all_that_is_wrong_with_pools_and_mounts_is_said_at_once(host: Tree) -> None:
    host.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")
    pools = [{"size": "2M", "count": 1}, {"size": "3M", "count": 1}, {"size": "2M", "count": -1}]
    mounts = [{"path": "mnt", "size": "2M"}, {"path": "/mnt/a", "size": "2M", "mode": "504"}]
    result = noiommu_info.declared({**ARGUMENTS, "hugepages": pools, "hugepage_mounts": mounts, "host_memory": "8G"})
    refusals = Preflight(host.root, GuardContext(host.root, NetState([], [])), result).report()["verdict"]["refusals"]
    assert [(refusal["evidence"][0], refusal["evidence"][-1].split(",")[0]) for refusal in refusals] == [
        ("declared by noiommu_hugepages", "[1]: size: 3M"),
        ("declared by noiommu_hugepages", "[2]: size: 2M"),
        ("declared by noiommu_hugepage_mounts", "[0]: path: mnt"),
        ("declared by noiommu_hugepage_mounts", "[1]: path: /mnt/a"),
    ]


def test_what_later_steps_accept_is_no_refusal(host: Tree) -> None:
    host.file("/etc/group", "root:x:0:")
    host.file("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh")
    host.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0")
    mounts = [{"path": "/mnt/huge", "size": "2M", "group": "dataplane"}]
    access = {"group": "dataplane", "users": ["ann"]}
    given = {**ARGUMENTS, "access": access, "hugepage_mounts": mounts, "hugepages": [{"size": "2M", "count": "1"}]}
    context = GuardContext(host.root, NetState([], []))
    assert codes(Preflight(host.root, context, noiommu_info.declared(given)).report()) == []


def test_parts_are_converted_as_their_modules_do() -> None:
    found = noiommu_info.declared(
        {**ARGUMENTS, "hugepages": [{"size": 2097152, "count": "4"}], "access": {"gid": "990"}}
    )
    assert found.hugepages == [{"size": "2097152", "count": 4, "node": None}]
    assert found.access is not None and found.access["gid"] == 990
    with pytest.raises(HostError) as caught:
        noiommu_info.declared({**ARGUMENTS, "access": {"memlok": 1}})
    assert caught.value.code == "declaration" and "memlok" in str(caught.value)


def test_a_deployed_host_says_what_applications_do_without_being_accepted(host: Tree) -> None:
    """Whoever asks what runs there declares nothing, and accepts nothing."""
    assert not report(host, accept=False)["applications"]["dpdk"]["works"]
    deployed = {"backend": "dkms", "driver": "vfio-pci", "dpdk_pa_hint": True, "devices": []}
    original = {"vendor_device": "8086:10d3", "driver": "e1000e", "driver_override": None, "interfaces": []}
    host.file("/etc/noiommu/bindings.json", json.dumps({"version": 1, **deployed}))
    host.file("/var/lib/noiommu/originals.json", json.dumps({"version": 1, "devices": {NIC: original}}))
    host.bind(NIC, "vfio-pci")
    host.group(3, NIC, name="noiommu", node="noiommu-" + NIC)
    host.file("/dev/vfio/3")
    host.file("/sys/bus/pci/devices/0000:00:00.0/iommu/intel-iommu/cap", "no IOMMU")
    found = report(host, accept=False)
    assert found["verdict"]["backend"] == "none" and codes(found) == ["unsafe_not_accepted"]
    prediction = found["applications"]["dpdk"]
    assert (prediction["backend"], prediction["iova_mode"], prediction["works"]) == ("dkms", "PA", True)
    assert "/dev/vfio/3" in found["container"]["devices"] and "SYS_RAWIO" in found["container"]["capabilities"]
    # What forbids it altogether is another matter.
    host.file("/sys/kernel/security/lockdown", "none [integrity] confidentiality")
    assert report(host, accept=False)["applications"]["dpdk"]["backend"] == "none"


def test_write_combining_has_the_module_installed_beside_an_iommu(host: Tree) -> None:
    host.group(3, NIC)
    host.file("/proc/cpuinfo", "flags\t\t: pat")
    host.bars(NIC, {0: (1 << 12, "mem"), 2: (1 << 20, "pref")})
    assert report(host, {"mac": MAC})["verdict"]["module_required"] is False
    wanted = report(host, {"mac": MAC, "write_combining": ["2"]})["verdict"]
    assert (wanted["backend"], wanted["safe"], wanted["module_required"]) == ("iommu", True, True), wanted
    refused = report(host, {"mac": MAC, "write_combining": ["0"]})
    assert codes(refused) == ["write_combining"] and refused["verdict"]["module_required"] is False
