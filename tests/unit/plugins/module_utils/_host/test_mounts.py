# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the boot needs before the network cannot be on what comes after it."""

from __future__ import annotations

import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import mounts
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.module_utils._preflight.preflight import Declaration, Preflight
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.guarding import NIC
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

LIBRARY = "/usr/local/lib/noiommu"
NFS = "/etc/fstab: nas:/local /usr/local nfs4 defaults"


@pytest.mark.parametrize(
    "fstab,mount,late",
    [
        ("nas:/local /usr/local nfs4 defaults 0 0", "", NFS),
        ("nas:/local /usr/local nfs4 defaults", "", NFS),
        (
            "/dev/sdb1 /usr/local ext4 defaults,_netdev 0 0",
            "",
            "/etc/fstab: /dev/sdb1 /usr/local ext4 defaults,_netdev",
        ),
        ("", "30 1 0:30 / /usr/local rw - nfs4 nas:/local rw", "nas:/local (nfs4) is mounted on /usr/local"),
        ("", "30 1 0:30 / /usr/local/lib rw - fuse.sshfs x: rw", "x: (fuse.sshfs) is mounted on /usr/local/lib"),
        ("#nas:/local /usr/local nfs4 defaults", "30 1 8:1 / / rw - nfs nas:/root rw", None),
        ("nas:/usr /usr nfs defaults", "30 1 8:1 / /usr/local rw - ext4 /dev/sda1 rw", None),
        ("nas:/x /usr/localx nfs defaults\nnas:/h /home nfs defaults", "", None),
        ("/dev/sdb1 /usr/local ext4 defaults", "31 1 0:31 / /mnt rw - nfs x rw", None),
    ],
)
def test_what_comes_after_the_network(tree: Tree, fstab: str, mount: str, late: str | None) -> None:
    tree.file("/etc/fstab", fstab)
    tree.file("/proc/1/mountinfo", mount)
    found = mounts.late_mount(tree.root, LIBRARY)
    assert found is None if late is None else found is not None and late in found


def test_a_link_to_such_a_place_counts(tree: Tree) -> None:
    tree.dir("/srv/shared/noiommu")
    tree.link(LIBRARY, "/srv/shared/noiommu")
    tree.file("/etc/fstab", "nas:/shared /srv/shared nfs defaults 0 0")
    assert mounts.refuse_late(tree.root, [LIBRARY])[0].code == "late_mount"


def test_it_is_refused_before_anything_changes_and_taken_back_all_the_same(machine: Machine) -> None:
    machine.tree.pci(NIC, driver="e1000e")
    machine.tree.file("/proc/sys/kernel/tainted", "0")
    machine.tree.file("/proc/sys/kernel/osrelease", os.uname().release)
    context, declared = GuardContext(machine.root), [{"address": NIC}]
    BindingChange(machine.kernel, context, Request(declared, accept_unsafe=True)).apply()
    machine.tree.file("/etc/fstab", "nas:/var /var nfs defaults 0 0")
    with pytest.raises(HostError) as caught:
        BindingChange(machine.kernel, context, Request(declared, accept_unsafe=True))
    assert caught.value.code == "late_mount" and caught.value.evidence == ["/etc/fstab: nas:/var /var nfs defaults"]
    verdict = Preflight(machine.root, context, Declaration(declared, [], accept_unsafe=True)).report(["os"])["verdict"]
    assert "late_mount" in [refusal["code"] for refusal in verdict["refusals"]]
    BindingChange(machine.kernel, context, Request(declared, accept_unsafe=True, persistent=False))
    BindingChange(machine.kernel, context, Request([])).apply()
    assert machine.driver_of(NIC) == "e1000e"


def test_a_hugetlbfs_is_read_as_everything_that_is_mounted(tree: Tree) -> None:
    lines = [
        "30 1 0:30 / /mnt/my\\040pages rw,relatime shared:1 - tmpfs none rw,size=4G",
        "31 30 0:31 / /mnt/my\\040pages rw,relatime shared:2 - hugetlbfs hugetlbfs rw,mode=0770,pagesize=2M,size=64M",
        "32 1 0:32 / /mnt/tmp rw - tmpfs none rw,pagesize=2M",
        "33 1 0:33 / /mnt/bare rw - hugetlbfs none",
    ]
    tree.file(mounts.MOUNTS, "\n".join(lines))
    shown = mounts.shown_mounts(tree.root)
    assert list(shown) == ["/mnt/my pages", "/mnt/tmp", "/mnt/bare"], "of two at one place, the one on top"
    assert [(mount.page_size, mount.limit) for mount in shown.values()] == [
        (2 << 20, 64 << 20),
        (None, None),
        (None, None),
    ]
