# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What programs are, on a tree and by the programs of the machine that this runs on."""

from __future__ import annotations

import shutil

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.executables import starts_programs, uses_vfio
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.packages import DPKG, base_package
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

ELF = b"\x7fELF\0\0"
EAL = "librte_eal.so.23"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/usr/bin/fwd": b"/dev/vfio/%u\0"}, True),
        ({"/usr/bin/fwd": b"librte_eal.so.23\0", "/usr/lib/" + EAL: b"/dev/vfio/vfio\0"}, True),
        ({"/usr/bin/fwd": b"librte_eal.so.23\0", "/usr/lib/x86_64-linux-gnu/" + EAL: b"/dev/vfio/vfio\0"}, True),
        (
            {"/usr/bin/fwd": b"liba.so\0", "/lib/liba.so": b"\0librte_eal.so.23\0", "/lib/" + EAL: b"/dev/vfio"},
            True,
        ),
        ({"/usr/bin/fwd": b"librte_eal.so.23\0/opt/dpdk/lib\0", "/opt/dpdk/lib/" + EAL: b"/dev/vfio/vfio\0"}, True),
        ({"/usr/bin/fwd": b"liba.so\0", "/lib/liba.so": b"\0libb.so\0", "/lib/libb.so": b"\0liba.so\0"}, False),
        ({"/usr/bin/fwd": b"librte_eal.so.23\0"}, False),
        ({"/usr/bin/fwd": b"", "/usr/lib/" + EAL: b"/dev/vfio/vfio\0"}, False),
    ],
)
def test_who_uses_vfio(tree: Tree, files: dict[str, bytes], expected: bool) -> None:
    tree.file("/etc/ld.so.conf.d/x86_64-linux-gnu.conf", "# Multiarch support\n/usr/lib/x86_64-linux-gnu")
    for path, content in files.items():
        tree.file(path, ELF + content)
    assert uses_vfio(tree.root, "/usr/bin/fwd") is expected


@pytest.mark.parametrize("name", ["cp", "dd", "cat", "dpkg", "tmux", "socat", "bash"])
def test_the_tools_of_a_host_do_not_use_vfio(name: str) -> None:
    path = shutil.which(name)
    if path is None:
        pytest.skip("not installed here")
    root = Root("/")
    real = root.realpath(path)
    assert not uses_vfio(root, real)
    if root.exists(DPKG, "status"):
        assert base_package(root, real) or starts_programs(root, real)
