# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host without an IOMMU, its accounts and its programs."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.access import (
    ADDRESS,
    TESTPMD,
    Accounts,
    bound,
    vfio_group,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.fixture
def accounts(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """A host with two users, a group of its own, and one VFIO group node of each kind, with a device of ours."""
    tree.file("/etc/group", "root:x:0:\nadmins:x:100:alice")
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nvpp:x:1001:1001::/:/bin/sh")
    owners: dict[str, tuple[int, int]] = {}
    for number, name in ((7, "noiommu"), (0, "vfio-noiommu")):
        vfio_group(tree, number, name)
    bound(tree, ADDRESS % 7, ADDRESS % 0)
    tree.file("/dev/vfio/vfio")
    tree.at("/dev/vfio/vfio").chmod(0o666)
    real_stat = os.stat

    def fake_stat(path: Any, **options: Any) -> os.stat_result:
        found = real_stat(path, **options)
        owner = owners.get(str(path), (0, 0))
        return os.stat_result((*found[:4], *owner, *found[6:]))

    def change_owner(file: Any, uid: int, gid: int) -> None:
        path = os.readlink("/proc/self/fd/%d" % file) if isinstance(file, int) else str(file)
        owners[path] = (uid, gid)
        attributes.pop(real_stat(path).st_ino, None)  # as the kernel does

    def get_attribute(path: Any, _name: str) -> bytes:
        if real_stat(path).st_ino not in attributes:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return attributes[real_stat(path).st_ino]

    attributes: dict[int, bytes] = {}
    monkeypatch.setattr(os, "stat", fake_stat)
    monkeypatch.setattr(os, "chown", change_owner)
    monkeypatch.setattr(os, "fchown", change_owner)
    monkeypatch.setattr(os, "getxattr", get_attribute)
    monkeypatch.setattr(os, "setxattr", lambda file, _name, data: attributes.__setitem__(real_stat(file).st_ino, data))
    monkeypatch.setattr(os, "removexattr", lambda file, _name: attributes.pop(real_stat(file).st_ino))
    found = Accounts(tree)
    found.owners, found.attributes = owners, attributes
    return found


@pytest.fixture
def host(accounts: Accounts, tree: Tree) -> Accounts:
    """With a program, two services, and systemd's mount of the hugetlbfs."""
    tree.file(TESTPMD, b"\x7fELF and /dev/vfio/vfio")
    tree.at(TESTPMD).chmod(0o755)
    tree.file("/usr/lib/systemd/system/fwd.service", "[Service]\nUser=vpp\nExecStart=/usr/bin/fwd \\\n --more")
    tree.file("/usr/lib/systemd/system/ovs-vswitchd.service", "[Service]\nType=forking")
    tree.file("/usr/lib/systemd/system/dev-hugepages.mount", "[Mount]\nWhat=hugetlbfs\nOptions=nosuid,nodev")
    tree.dir("/dev/hugepages")
    tree.at("/dev/hugepages").chmod(0o755)
    tree.file(
        "/proc/1/mountinfo",
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:30 / /dev/hugepages rw,relatime shared:9 - hugetlbfs hugetlbfs rw,pagesize=2M",
    )
    return accounts
