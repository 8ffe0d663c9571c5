# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts and pools in one run: all of it, or nothing."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.modules import hugepages
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import FakeGrub
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.hugetlb_mounts import (
    Mounts,
    mount_at,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

# --- mounts and pools in one run: all of it, or nothing ---


class MountsAndGrub(Mounts):
    """A host with pools, too small for pages of 1 GiB: they come with the next boot."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self.grub = FakeGrub(tree)
        for size in (2048, 1048576):
            for name in ("nr_hugepages", "surplus_hugepages", "free_hugepages"):
                tree.file("/sys/kernel/mm/hugepages/hugepages-%dkB/%s" % (size, name), "0")
        tree.file("/proc/meminfo", "MemTotal: 4194304 kB\nMemFree: 524288 kB")
        for folder in ("/srv", "/etc/default/grub.d", "/usr/local/lib/noiommu"):
            tree.dir(folder)

    def run(self, *argv: str) -> RunResult:
        done = super().run(*argv)
        if argv == ("update-grub",) and done.rc == 0:
            self.grub.do(argv)
        return done


class Pages(Root):
    """Gives what is asked for, or refuses."""

    stubborn = False

    def write_sysfs(self, path: str, value: str) -> None:
        if self.stubborn:
            raise HostError("kernel_write", "The kernel refused.")
        for name in ("nr_hugepages", "free_hugepages"):
            with open(self.path(os.path.dirname(path), name), "w", encoding="ascii") as stream:
                stream.write(value)


BOTH = {
    "pools": [{"size": "2M", "count": 4}, {"size": "1G", "count": 2}],
    "mounts": [mount_at("/srv/a/b"), mount_at("/srv/c", "2M")],
    "state": "present",
}
NEITHER = {"pools": None, "mounts": None, "state": "absent"}


@pytest.fixture
def pages(tree: Tree) -> Pages:
    return Pages(str(tree.base))


@pytest.fixture
def host(tree: Tree) -> MountsAndGrub:
    return MountsAndGrub(tree)


def both(host: Mounts, pages: Pages, declared: dict[str, Any]) -> dict[str, Any]:
    module = FakeModule({"persistent": True, "groups_to_come": [], "host_memory": None, **declared})
    return hugepages.hugepages(module, pages, host)


@pytest.mark.parametrize("wanted", [BOTH, NEITHER, {**BOTH, "pools": [], "mounts": [mount_at("/srv/d/e")]}])
@pytest.mark.parametrize("fails", ["the kernel", "update-grub"])
def test_what_the_pools_cannot_do_takes_the_mounts_back(
    host: MountsAndGrub, pages: Pages, tree: Tree, wanted: dict[str, Any], fails: str
) -> None:
    if wanted is not BOTH:
        both(host, pages, BOTH)
    before = tree.content()
    host.ran.clear()
    pages.stubborn = fails == "the kernel"
    host.fail = fails
    with pytest.raises(HostError, match=r"refused|update-grub") as caught:
        both(host, pages, wanted)
    assert any(line.startswith(("mount", "umount")) for line in host.ran), "the mounts come first"
    assert tree.content() == before and "NOT put back" not in str(caught.value)
    assert "systemctl daemon-reload" not in host.ran, "systemd would not know the units that are back"
    pages.stubborn, host.fail = False, None
    assert both(host, pages, wanted)["changed"] and not both(host, pages, wanted)["changed"]


def test_pools_and_mounts_are_taken_back_wherever_that_was_killed(
    host: MountsAndGrub, pages: Pages, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    pristine = left(tree)
    killer = Killer(monkeypatch, (host, "run"), (pages, "write_sysfs"))
    for steps in killer.each(lambda: both(host, pages, BOTH), lambda: both(host, pages, NEITHER)):
        both(host, pages, NEITHER)
        assert not both(host, pages, NEITHER)["changed"]
        tree.dir("/usr/local/lib/noiommu")  # vfio_binding removes it if nothing is in it
        assert left(tree) == pristine, steps
