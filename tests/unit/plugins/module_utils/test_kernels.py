# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import gzip

import pytest

from ansible_collections.baremetal.noiommu.plugins.module_utils import _kernels
from ansible_collections.baremetal.noiommu.plugins.module_utils._errors import HostError
from ansible_collections.baremetal.noiommu.tests.unit.fake_dkms import KERNEL, OTHER, build_host
from ansible_collections.baremetal.noiommu.tests.unit.tree import Tree


@pytest.fixture(autouse=True)
def host(tree: Tree) -> None:
    build_host(tree)


def test_the_running_kernel(tree: Tree) -> None:
    assert _kernels.running(tree.root) == KERNEL
    tree.remove("/proc")
    with pytest.raises(HostError):
        _kernels.running(tree.root)


def test_installed_kernels_are_ordered_as_people_count(tree: Tree) -> None:
    tree.file("/boot/vmlinuz-6.9.0-1-amd64")
    tree.dir("/lib/modules/6.9.0-1-amd64")
    tree.dir("/lib/modules/6.2.0-headers-only")
    assert _kernels.installed(tree.root) == [KERNEL, "6.9.0-1-amd64", OTHER]


def test_headers_need_a_makefile_at_the_end_of_the_link(tree: Tree) -> None:
    assert _kernels.headers(tree.root, KERNEL) == "/usr/src/linux-headers-" + KERNEL
    tree.remove("/usr/src/linux-headers-" + KERNEL)
    assert _kernels.headers(tree.root, KERNEL) is None
    assert _kernels.headers(tree.root, "6.6.6") is None


def test_the_configuration_is_found_where_there_is_one(tree: Tree) -> None:
    assert _kernels.read_config(tree.root, KERNEL)["CONFIG_CC_VERSION_TEXT"].startswith('"gcc-12')
    tree.remove("/boot")
    assert _kernels.read_config(tree.root, KERNEL) is None
    tree.file("/usr/src/linux-headers-%s/.config" % KERNEL, "CONFIG_A=y\n# CONFIG_B is not set")
    assert _kernels.read_config(tree.root, KERNEL) == {"CONFIG_A": "y"}
    tree.file("/proc/config.gz", gzip.compress(b"CONFIG_C=m\n"))
    assert _kernels.read_config(tree.root, KERNEL) == {"CONFIG_C": "m"}
    assert _kernels.read_config(tree.root, OTHER) is None


def test_the_compiler_is_the_kernels_own_or_else_the_usual_one(tree: Tree) -> None:
    assert _kernels.compiler(tree.root, KERNEL) == "/usr/bin/gcc-12"
    tree.file("/usr/bin/gcc")
    assert _kernels.compiler(tree.root, "6.6.6") == "/usr/bin/gcc"
    tree.remove("/usr/bin")
    assert _kernels.compiler(tree.root, KERNEL) is None


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("ID=debian\nVERSION_ID=\"13\"", "debian"),
        ("ID=ubuntu\nID_LIKE=debian", "debian"),
        ("ID=rocky\nID_LIKE=\"rhel centos fedora\"", "redhat"),
        ("ID=fedora", "redhat"),
        ("ID=arch", "unknown"),
        ("", "unknown"),
    ],
)
def test_families(tree: Tree, text: str, family: str) -> None:
    tree.file("/etc/os-release", text)
    assert _kernels.read_os(tree.root).family == family


def test_nothing_is_missing_on_a_complete_host(tree: Tree) -> None:
    assert _kernels.missing_for_build(tree.root, KERNEL) == {}


def test_everything_missing_is_named_by_package(tree: Tree) -> None:
    tree.remove("/usr")
    assert sorted(_kernels.missing_for_build(tree.root, KERNEL)) == ["dkms", "gcc", "linux-headers-" + KERNEL, "make"]
    tree.file("/etc/os-release", "ID=fedora")
    assert "kernel-devel-" + KERNEL in _kernels.missing_for_build(tree.root, KERNEL)
