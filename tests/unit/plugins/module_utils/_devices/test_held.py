# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds a device: each function of a group is held with the group, and looking is not holding."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import control
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.control import Kernel
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.held import in_use
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciDevice
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

FUNCTIONS = ["0000:00:14.%d" % function for function in range(3)]
GROUP = "/dev/vfio/8"


def test_every_function_of_a_group_is_held_with_it(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    monkeypatch.setattr("%s.held.nodes_of" % control.__package__, lambda _root, _device: [GROUP])
    tree.file(GROUP, "")
    tree.file("/proc/4711/comm", "dpdk-testpmd")
    tree.dir("/proc/4711/fd")
    tree.at("/proc/4711/fd/17").symlink_to(GROUP)
    root = Root(str(tree.base))
    found = in_use(Kernel(root, Runner()), [PciDevice(root, address) for address in FUNCTIONS])
    assert list(found) == FUNCTIONS
    for address, error in found.items():
        assert error.message.startswith(address) and "process 4711 (dpdk-testpmd)" in error.evidence[0]


def test_threads_that_look_at_one_group_do_not_take_each_other_for_users(
    monkeypatch: pytest.MonkeyPatch, tree: Tree
) -> None:
    """VFIO lets a group be opened once; many functions of it are examined at once."""
    opened = threading.Lock()

    def open_once(_path: str, _flags: int) -> int:
        if not opened.acquire(blocking=False):
            raise OSError(errno.EBUSY, "Device or resource busy")
        time.sleep(0.02)
        return 99

    class Files:
        O_RDWR, O_CLOEXEC = os.O_RDWR, os.O_CLOEXEC
        open = staticmethod(open_once)
        close = staticmethod(lambda _number: opened.release())

    tree.file(GROUP, "")
    root = Root(str(tree.base))
    monkeypatch.setattr(Root, "is_live", property(lambda _root: True))
    monkeypatch.setattr(control, "os", Files)
    scans: list[set[str]] = []
    monkeypatch.setattr(control, "open_files", lambda _root, wanted: scans.append(wanted) or [])
    kernel = Kernel(root, Runner())
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(kernel.users([GROUP]))) for _number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{}] * 8 and not scans, "what can be opened is free: no process need be looked at"
    with opened:
        assert "opening it gives EBUSY" in kernel.users([GROUP])[GROUP][0]
    assert scans == [{GROUP}]
