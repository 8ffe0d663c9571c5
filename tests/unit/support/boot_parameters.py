# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls of the module kernel_cmdline on a simulated host."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.modules import kernel_cmdline
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import (
    FakeBoot,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PAGES = "hugepagesz=1G hugepages=4"
Make = Callable[[Tree], FakeBoot]


def run(
    boot: FakeBoot, *parameters: str, check: bool = False, root: Root | None = None, **params: Any
) -> dict[str, Any]:
    given = {"parameters": list(parameters), "without": [], "name": "custom", "state": "present", **params}
    module = FakeModule(given, check)
    return kernel_cmdline.kernel_cmdline(module, root or boot.tree.root, boot)


def changing(boot: FakeBoot) -> list[str]:
    """What was run that changes something."""
    return [command for command in boot.ran if "--info" not in command]


def everything(boot: FakeBoot) -> tuple:
    return boot.tree.content(), boot.next
