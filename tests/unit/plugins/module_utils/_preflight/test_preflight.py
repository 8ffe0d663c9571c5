# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict on a host, and the report from which it is made."""

from __future__ import annotations

import json
from typing import Any

import pytest
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
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER
from ansible_collections.baremetal.noiommu.tests.unit.support.preflight import (
    DISK,
    MAC,
    NIC,
    codes,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

EFIVARS = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
MEANING = "can read and write all memory of this host"


def report(tree: Tree, *devices: dict[str, Any], backend: str = "auto", accept: bool = True) -> dict[str, Any]:
    context = GuardContext(tree.root, NetState([], []))
    return Preflight(tree.root, context, Declaration(list(devices), [], backend, accept)).report()


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
