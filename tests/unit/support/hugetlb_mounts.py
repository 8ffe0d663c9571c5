# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts of hugetlbfs that mount(8) and systemd make, and runs of the module on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.modules import hugepages
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

UID, GID = os.getuid(), os.getgid()
UNITS = "/etc/systemd/system"
WANTS = UNITS + "/multi-user.target.wants"


class Mounts(Runner):
    """mount and umount, on the tree's mountinfo: what is mounted hides what was there."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.ran: list[str] = []
        self.fail: str | None = None
        self._mounted: dict[str, str] = {}
        tree.dir("/sys/kernel/mm/hugepages/hugepages-2048kB")
        tree.dir("/sys/kernel/mm/hugepages/hugepages-1048576kB")
        tree.dir(WANTS)
        tree.dir("/var/lib")
        tree.dir("/dev")
        tree.dir("/run/systemd/system")
        tree.file("/etc/group", "root:x:0:\ndata:x:%d:" % GID)
        tree.file("/etc/passwd", "root:x:0:0::/:/bin/sh\nvpp:x:%d:1::/:/bin/sh" % UID)
        self._show()

    def _show(self) -> None:
        lines = ["22 1 0:5 / / rw - ext4 /dev/sda1 rw"]
        lines += ["30 22 0:27 / %s rw - hugetlbfs hugetlbfs %s" % mount for mount in sorted(self._mounted.items())]
        self.tree.file("/proc/1/mountinfo", "\n".join(lines))

    def mount(self, path: str, options: str) -> None:
        """As the kernel does it."""
        fields = dict(option.split("=") for option in options.split(",") if "=" in option)
        beside = Path(str(self.tree.at(path)) + ".hidden")
        self.tree.at(path).rename(beside)
        self.tree.dir(path)
        os.chmod(self.tree.at(path), int(fields.get("mode", "755"), 8))
        shown = ["%s=%s" % pair for pair in fields.items() if pair[0] in ("mode", "size")]
        self._mounted[path] = ",".join(["rw", *shown, "pagesize=" + fields["pagesize"].replace("1G", "1024M")])
        self._show()

    def run(self, *argv: str) -> RunResult:
        self.ran.append(" ".join(argv))
        if self.fail and self.ran[-1].startswith(self.fail):
            return RunResult(32, "", "%s: target is busy." % argv[-1])
        if argv[0] == "mount":
            self.mount(argv[-1], argv[4])
        elif argv[0] == "umount":
            self.tree.remove(argv[1])
            Path(str(self.tree.at(argv[1])) + ".hidden").rename(self.tree.at(argv[1]))
            del self._mounted[argv[1]]
            self._show()
        return RunResult(0, "", "")


def mount_at(path: str = "/dev/huge-1G", size: str = "1G", **more: Any) -> dict[str, Any]:
    nothing = {"uid": UID, "owner": None, "gid": GID, "group": None, "limit": None, "mode": "0770"}
    return {"path": path, "size": size, **nothing, **more}


def run(mounts: Mounts, *wanted: dict[str, Any], check: bool = False, state: str = "present") -> dict[str, Any]:
    module = FakeModule(
        {
            "pools": None,
            "persistent": True,
            "mounts": list(wanted),
            "state": state,
            "groups_to_come": ["to-come"],
            "host_memory": None,
        },
        check,
    )
    return hugepages.hugepages(module, mounts.tree.root, mounts)
