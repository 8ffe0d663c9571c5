# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The choice of a backend, and every reason against one."""

from __future__ import annotations

import gzip
import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import BINDINGS
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.records import dump_json
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.kernel_config import lockdown, vfio_noiommu_config
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.modules import (
    dependencies,
    module_installed,
    module_loaded,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.backend import choose, needs, with_dependencies
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NIC = "0000:00:04.0"
RELEASE = os.uname().release


def codes(tree: Tree, *args: object) -> list[str]:
    return [refusal.code for refusal in choose(tree.root, *args).refusals]


@pytest.fixture
def builtin(tree: Tree) -> Tree:
    tree.file("/boot/config-" + RELEASE, "CONFIG_VFIO=m\nCONFIG_VFIO_NOIOMMU=y\n")
    return tree


@pytest.fixture
def iommu(tree: Tree) -> Tree:
    tree.pci(NIC)
    tree.group(1, NIC)
    return tree


def test_auto_takes_what_the_host_has(tree: Tree) -> None:
    assert choose(tree.root, "auto", True).backend == "dkms"
    tree.file("/boot/config-" + RELEASE, "CONFIG_VFIO_NOIOMMU=y")
    assert choose(tree.root, "auto", True).backend == "builtin"
    tree.pci(NIC)
    tree.group(1, NIC)
    assert choose(tree.root, "auto", True).backend == choose(tree.root, "auto", False).backend == "iommu"


@pytest.mark.parametrize("backend", ["auto", "dkms"])
def test_insecure_mode_needs_consent_and_says_what_it_is(tree: Tree, backend: str) -> None:
    choice = choose(tree.root, backend, False)
    assert choice.backend is None and [refusal.code for refusal in choice.refusals] == ["unsafe_not_accepted"]
    assert "can read and write all memory of this host" in str(choice.refusals[0])


def test_an_iommu_forbids_the_insecure_backends(iommu: Tree) -> None:
    assert codes(iommu, "dkms", True) == ["iommu_active"]
    assert codes(iommu, "builtin", True) == ["iommu_active", "backend_unavailable"]


def test_iommu_is_refused_without_one(tree: Tree) -> None:
    assert codes(tree, "iommu") == ["backend_unavailable"]


def test_builtin_is_refused_where_the_kernel_lacks_it(builtin: Tree) -> None:
    assert choose(builtin.root, "builtin", True).backend == "builtin"
    builtin.dir("/sys/module/vfio")  # loaded without the parameter: the configuration file is of another build
    assert codes(builtin, "builtin", True) == ["backend_unavailable"]


def test_an_iommu_that_is_off_is_the_better_way(tree: Tree) -> None:
    tree.file("/sys/firmware/acpi/tables/DMAR", b"DMAR")
    tree.file("/proc/cmdline", "intel_iommu=off")
    assert "boot with intel_iommu=on and without intel_iommu=off" in choose(tree.root, "iommu").refusals[0].remedy
    assert choose(tree.root, "auto", False).refusals[0].remedy.startswith("Better: boot with intel_iommu=on")
    accepted = choose(tree.root, "auto", True)
    assert accepted.backend == "dkms" and "Better than insecure mode" in accepted.warnings[0]


def test_a_host_that_lost_its_iommu_is_not_made_insecure_by_auto(tree: Tree) -> None:
    tree.file(BINDINGS, dump_json({"backend": "iommu", "devices": []}))
    lost = choose(tree.root, "auto", True)
    assert lost.backend is None and [refusal.code for refusal in lost.refusals] == ["iommu_lost"]
    assert "noiommu_backend: dkms" in lost.refusals[0].remedy and BINDINGS in lost.refusals[0].evidence[0]
    assert choose(tree.root, "dkms", True).backend == "dkms"  # meant
    tree.file(BINDINGS, dump_json({"backend": "dkms", "devices": []}))
    assert choose(tree.root, "auto", True).backend == "dkms"


def test_lockdown_forbids_dkms(tree: Tree) -> None:
    tree.file("/sys/kernel/security/lockdown", "[none] integrity confidentiality")
    assert lockdown(tree.root) == "none" and codes(tree, "dkms", True) == []
    tree.file("/sys/kernel/security/lockdown", "none [integrity] confidentiality")
    assert codes(tree, "dkms", True) == ["lockdown"]


@pytest.mark.parametrize("backend", ["dkms", "builtin"])
@pytest.mark.parametrize(
    "path, text, code",
    [
        ("/proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu tdx_guest vme", "memory_encrypted"),
        ("/sys/devices/system/cpu/sev/vmpl", "0", "memory_encrypted"),
        ("/dev/kmsg", "6,9,0,-;AMD Memory Encryption Features active: SME", "memory_encrypted"),
        ("/dev/kmsg", "6,9,0,-;Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP", "memory_encrypted"),
        ("/dev/kmsg", "6,9,0,-;RME: Using RSI version 1.0", "memory_encrypted"),
        ("/sys/hypervisor/guest_type", "PV", "xen_pv"),
    ],
)
def test_where_a_physical_address_is_not_what_a_device_uses(
    tree: Tree, backend: str, path: str, text: str, code: str
) -> None:
    tree.file("/sys/hypervisor/type", "xen")
    tree.file("/boot/config-" + RELEASE, "CONFIG_VFIO_NOIOMMU=y\n")
    assert codes(tree, backend, True) == []
    tree.file(path, text)
    (refusal,) = choose(tree.root, backend, True).refusals
    assert refusal.code == code and refusal.evidence[0].startswith(path.replace("/vmpl", ""))
    assert "IOMMU" in refusal.remedy


def test_memory_that_could_be_encrypted_and_is_not(tree: Tree) -> None:
    tree.file("/proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu sme sev")
    tree.file("/proc/cmdline", "quiet")
    assert codes(tree, "dkms", True) == []
    tree.file("/proc/cmdline", "quiet mem_encrypt=on")
    assert codes(tree, "dkms", True) == ["memory_encrypted"]


@pytest.mark.parametrize("kind", ["HVM", "PVH"])
def test_other_xen_domains_are_like_any_host(tree: Tree, kind: str) -> None:
    tree.file("/sys/hypervisor/type", "xen")
    tree.file("/sys/hypervisor/guest_type", kind)
    assert codes(tree, "dkms", True) == []


def test_configuration_sources(tree: Tree) -> None:
    assert vfio_noiommu_config(tree.root) == "unknown"
    tree.file("/proc/config.gz", gzip.compress(b"# x\n# CONFIG_VFIO_NOIOMMU is not set\n"))
    assert vfio_noiommu_config(tree.root) == "n"
    tree.file("/boot/config-" + RELEASE, "# x\nCONFIG_VFIO_NOIOMMU=y\n")
    assert vfio_noiommu_config(tree.root) == "y"
    tree.dir("/sys/module/vfio")
    assert vfio_noiommu_config(tree.root) == "n"
    tree.file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N")
    assert vfio_noiommu_config(tree.root) == "y"


def test_modules_as_depmod_lists_them(tree: Tree) -> None:
    base = "/lib/modules/" + RELEASE
    tree.file(base + "/modules.dep", "updates/dkms/noiommu.ko.xz: kernel/x.ko\nkernel/my_vfio-pci.ko:\n")
    tree.file(base + "/modules.builtin", "kernel/drivers/vfio/vfio.ko\n")
    assert module_installed(tree.root, "noiommu") and module_installed(tree.root, "vfio")
    assert not module_installed(tree.root, "vfio-pci") and not module_installed(tree.root, "x_noiommu")
    assert module_installed(tree.root, "noiommu", RELEASE) and not module_installed(tree.root, "noiommu", "1.0")
    assert module_loaded(tree.root, "vfio") and not module_loaded(tree.root, "noiommu")


def test_dependencies_in_load_order(tree: Tree) -> None:
    line = "kernel/vfio-pci.ko.xz: kernel/vfio-pci-core.ko.xz kernel/vfio_virqfd.ko kernel/vfio.ko"
    tree.file("/lib/modules/%s/modules.dep" % RELEASE, "kernel/a.ko:\n%s\nkernel/vfio.ko:" % line)
    assert dependencies(tree.root, "vfio-pci") == ["vfio", "vfio_virqfd", "vfio-pci-core"]
    assert dependencies(tree.root, "vfio") == dependencies(tree.root, "nothing") == []
    assert with_dependencies(tree.root, ["vfio-pci"]) == {"vfio", "vfio_virqfd", "vfio-pci-core", "vfio-pci"}
    assert with_dependencies(tree.root, []) == set()


def test_only_the_dkms_backend_lets_interrupts_be_unsafe() -> None:
    assert any("unsafe_interrupts" in path for path in needs("dkms", "vfio-pci", True).parameters)
    for backend in ("iommu", "builtin"):
        assert not any("unsafe_interrupts" in path for path in needs(backend, "vfio-pci", True).parameters)
    assert "noiommu dpdk_pa_hint=N" in needs("dkms", "vfio-pci", False).modprobe_options
