# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host whose accounts, programs and services grants are made for."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import file_capabilities
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    ORIGINALS,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.records import dump_json
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.accounts import read_groups
from ansible_collections.baremetal.noiommu.plugins.modules import dataplane_access
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


class Accounts(Runner):
    """groupadd, usermod and the rest, on the tree's /etc/group."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.ran: list[str] = []
        self.failing: dict[str, RunResult] = {}
        self.owners: dict[str, tuple[int, int]] = {}
        self.attributes: dict[int, bytes] = {}

    def capabilities(self, path: str) -> int:
        """Return what a file's attribute permits."""
        data = self.attributes.get(self.tree.at(path).stat().st_ino)
        return file_capabilities.permitted(data.hex() if data else None, path)

    def mode(self, path: str) -> int:
        """Return a file's permissions."""
        return self.tree.at(path).stat().st_mode & 0o7777

    def run(self, *argv: str) -> RunResult:
        self.ran.append(" ".join(argv))
        for start, result in self.failing.items():
            if self.ran[-1].startswith(start):
                return result
        groups = {group.name: group for group in read_groups(self.tree.root).values()}
        name = argv[-1]
        if argv[0] == "groupadd":
            gid = int(argv[argv.index("--gid") + 1]) if "--gid" in argv else 990
            groups[name] = type(next(iter(groups.values())))(name, gid, [])
        elif argv[0] == "groupdel":
            groups.pop(name, None)
        elif argv[0] == "usermod":
            groups[argv[3]].members.append(name)
        elif argv[0] == "gpasswd":
            groups[name].members.remove(argv[2])
        lines = ["%s:x:%d:%s" % (group.name, group.gid, ",".join(group.members)) for group in groups.values()]
        self.tree.file("/etc/group", "\n".join(lines))
        return RunResult(0, "", "")


ADDRESS = "0000:00:%02x.0"


def vfio_group(tree: Tree, number: int, name: str | None) -> str:
    """Add a VFIO group with one device and its node, and return the node."""
    tree.pci(ADDRESS % number)
    tree.group(number, ADDRESS % number, name=name, node=None)
    node = "/dev/vfio/%s%d" % ("noiommu-" if name == "vfio-noiommu" else "", number)
    tree.file(node)
    tree.at(node).chmod(0o600)
    return node


def bound(tree: Tree, *addresses: str) -> None:
    """Record that vfio_binding has bound these devices."""
    devices = {address: {"driver": "e1000e", "interfaces": []} for address in addresses}
    tree.file(ORIGINALS, dump_json({"devices": devices, "sriov": {}}))


def run(accounts: Accounts, check: bool = False, **params: Any) -> dict[str, Any]:
    given = {name: spec.get("default") for name, spec in dataplane_access.ARGUMENTS.items()}
    given = {**given, "state": "present", **params}
    module = FakeModule(given, check)
    result = dataplane_access.dataplane_access(module, accounts.tree.root, accounts)
    return {**result, "warnings": module.warnings}


def refused(accounts: Accounts, **params: Any) -> HostError:
    """Return the error, after seeing that nothing was run or changed."""
    before = accounts.tree.content()
    with pytest.raises(HostError) as caught:
        run(accounts, **params)
    assert accounts.ran == [] and accounts.tree.content() == before
    assert caught.value.evidence and caught.value.remedy
    return caught.value


# --- services, programs and the hugetlbfs, on a host without an IOMMU ---

TESTPMD = "/usr/bin/dpdk-testpmd"


def everything(**more: Any) -> dict[str, Any]:
    return {
        "group": "dataplane",
        "services": [{"name": "fwd"}, {"name": "ovs-vswitchd.service", "profile": "ovs"}],
        "binaries": [{"path": TESTPMD}],
        "accept_unsafe": True,
        **more,
    }


def clean(tree: Tree) -> dict[str, str]:
    """The tree's content without directories that only a real host has."""
    return {path: text for path, text in tree.content().items() if text != "dir"}


def upgrade(host: Accounts, tree: Tree) -> None:
    """Put a new file in place as a package manager does."""
    tree.file(TESTPMD + ".new", b"\x7fELF and newer /dev/vfio/vfio")
    tree.at(TESTPMD + ".new").chmod(0o755)
    os.rename(tree.at(TESTPMD + ".new"), tree.at(TESTPMD))
    host.owners.pop(str(tree.at(TESTPMD)), None)
