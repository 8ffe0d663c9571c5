# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import gzip

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import kernels
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import KERNEL, OTHER, build_host
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.fixture(autouse=True)
def host(tree: Tree) -> None:
    build_host(tree)


def test_the_running_kernel(tree: Tree) -> None:
    assert kernels.running(tree.root) == KERNEL
    tree.remove("/proc")
    with pytest.raises(HostError):
        kernels.running(tree.root)


def test_installed_kernels_are_ordered_as_people_count(tree: Tree) -> None:
    tree.file("/boot/vmlinuz-6.9.0-1-amd64")
    tree.dir("/lib/modules/6.9.0-1-amd64")
    tree.dir("/lib/modules/6.2.0-headers-only")
    assert kernels.installed(tree.root) == [KERNEL, "6.9.0-1-amd64", OTHER]


def test_headers_need_a_makefile_at_the_end_of_the_link(tree: Tree) -> None:
    assert kernels.headers(tree.root, KERNEL) == "/usr/src/linux-headers-" + KERNEL
    tree.remove("/usr/src/linux-headers-" + KERNEL)
    assert kernels.headers(tree.root, KERNEL) is None
    assert kernels.headers(tree.root, "6.6.6") is None


def test_the_configuration_is_found_where_there_is_one(tree: Tree) -> None:
    assert kernels.read_config(tree.root, KERNEL)["CONFIG_CC_VERSION_TEXT"].startswith('"gcc-12')
    tree.remove("/boot")
    assert kernels.read_config(tree.root, KERNEL) is None
    tree.file("/usr/src/linux-headers-%s/.config" % KERNEL, "CONFIG_A=y\n# CONFIG_B is not set")
    assert kernels.read_config(tree.root, KERNEL) == {"CONFIG_A": "y"}
    tree.file("/proc/config.gz", gzip.compress(b"CONFIG_C=m\n"))
    assert kernels.read_config(tree.root, KERNEL) == {"CONFIG_C": "m"}
    assert kernels.read_config(tree.root, OTHER) is None


def test_the_compiler_is_the_kernels_own_or_else_the_usual_one(tree: Tree) -> None:
    assert kernels.compiler(tree.root, KERNEL) == "/usr/bin/gcc-12"
    tree.file("/usr/bin/gcc")
    assert kernels.compiler(tree.root, "6.6.6") == "/usr/bin/gcc"
    tree.remove("/usr/bin")
    assert kernels.compiler(tree.root, KERNEL) is None


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('ID=debian\nVERSION_ID="13"', "debian"),
        ("ID=ubuntu\nID_LIKE=debian", "debian"),
        ('ID=rocky\nID_LIKE="rhel centos fedora"', "redhat"),
        ("ID=fedora", "redhat"),
        ("ID=arch", "unknown"),
        ("", "unknown"),
    ],
)
def test_families(tree: Tree, text: str, family: str) -> None:
    tree.file("/etc/os-release", text)
    assert kernels.read_os(tree.root).family == family


def test_nothing_is_missing_on_a_complete_host(tree: Tree) -> None:
    assert kernels.missing_for_build(tree.root, KERNEL) == {}


def test_everything_missing_is_named_by_package(tree: Tree) -> None:
    tree.remove("/usr")
    assert sorted(kernels.missing_for_build(tree.root, KERNEL)) == ["dkms", "gcc", "linux-headers-" + KERNEL, "make"]
    tree.file("/etc/os-release", "ID=fedora")
    assert "kernel-devel-" + KERNEL in kernels.missing_for_build(tree.root, KERNEL)


@pytest.mark.parametrize(
    "release",
    [
        "6.1.0-57-amd64",
        "6.12.118+deb13-amd64",
        "5.14.0-503.el9.x86_64+rt",
        "6.8.0-1021-aws",
        "6.12.0-rc1",
        "6.1.0~bpo11",
        "6.12.0+",
        "7",
        "7" * 64,
    ],
)
def test_releases(release: str) -> None:
    assert kernels.is_release(release)
    kernels.require_release(release, "here")


@pytest.mark.parametrize(
    "release",
    [
        "amd64,inetutils-telnetd",
        "6.1.0,inetutils-telnetd",
        "../../../x",
        "6.1.0/../../x",
        "6..1",
        "6.1.0-",
        "6.",
        "",
        "x6",
        "-6.1",
        ".6",
        "6.1.0 x",
        "6.1.0\n",
        "6.1.0\n6",
        "6.1.0;id",
        "6.1.0$x",
        "6=1",
        "6.1.0{{ x }}",
        "\u0666.1",
        "7" * 65,
        None,
        6,
        6.1,
        ["6.1"],
        {"6.1": 1},
    ],
)
def test_what_is_no_release(release: object) -> None:
    with pytest.raises(HostError) as caught:
        kernels.require_release(release, "here")
    error = caught.value
    assert error.code == "kernel_release" and error.evidence[0].startswith("here: ") and error.remedy


@pytest.mark.parametrize("named", ["/tmp/x", "../gcc", "./gcc", "-gcc", "gcc;id", "gcc\tx", "g" * 65])
def test_a_compiler_is_named_plainly(tree: Tree, named: str) -> None:
    tree.file("/tmp/x")
    tree.file("/boot/config-" + KERNEL, 'CONFIG_CC_VERSION_TEXT="%s 12.2.0"' % named)
    with pytest.raises(HostError) as caught:
        kernels.compiler(tree.root, KERNEL)
    assert caught.value.code == "compiler_name" and named[:8] in caught.value.evidence[0].replace("\\t", "\t")


@pytest.mark.parametrize(
    "text, found",
    [
        ("gcc-12 (Debian 12.2.0-14) 12.2.0", "gcc-12"),
        ("x86_64-linux-gnu-gcc-13 (Ubuntu) 13", "x86_64-linux-gnu-gcc-13"),
        ("clang version 15.0.6", "clang"),
        ("Debian clang version 14.0.6", "gcc"),
        ("reboot 1.0", "gcc"),
    ],
)
def test_nothing_but_a_compiler_is_run_as_one(tree: Tree, text: str, found: str) -> None:
    for program in ("gcc", "clang", "reboot", "Debian", "x86_64-linux-gnu-gcc-13"):
        tree.file("/usr/bin/" + program)
    tree.file("/boot/config-" + KERNEL, 'CONFIG_CC_VERSION_TEXT="%s"' % text)
    assert kernels.compiler(tree.root, KERNEL) == "/usr/bin/" + found
