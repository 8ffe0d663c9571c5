# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools and mounts in one run: all of it, or nothing."""

from __future__ import annotations

from typing import Any, Container, Sequence

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .mounts import MountsPlan
from .plan import PoolsPlan


class HugepagesPlan:
    """What one run does to pools and mounts; None for either leaves it alone."""

    def __init__(
        self,
        root: Root,
        runner: Runner,
        pools: list[dict[str, Any]] | None,
        mounts: list[dict[str, Any]] | None,
        persistent: bool = True,
        groups_to_come: Container[str] = (),
        host_memory: Any = None,
    ) -> None:
        self.mounts = None if mounts is None else MountsPlan(root, runner, mounts, groups_to_come)
        gone = self.mounts.left_over if self.mounts else []
        self.pools = None if pools is None else PoolsPlan(root, runner, pools, persistent, gone, host_memory)
        self._plans = [plan for plan in (self.mounts, self.pools) if plan is not None]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return any(plan.changed for plan in self._plans)

    @property
    def warnings(self) -> Sequence[str]:
        """Whatever else on the host will replace the declared pages."""
        return self.pools.warnings if self.pools else []

    def before(self) -> dict[str, int]:
        """Return the counts that were found, by pool."""
        return self.pools.before() if self.pools else {}

    def after(self) -> dict[str, int]:
        """Return the counts after this run, by pool."""
        return self.pools.after() if self.pools else {}

    def diff(self) -> list[dict[str, str]]:
        """Return the differences in the form that Ansible prints."""
        return [entry for plan in self._plans for entry in plan.diff()]

    def apply(self) -> None:
        """Change mounts first: unmounting returns pages to the pools."""
        mounts = self.mounts if self.mounts is not None and self.mounts.changed else None
        if mounts:
            mounts.apply()
        try:
            if self.pools is not None and self.pools.changed:
                self.pools.apply()
        except HostError as exc:
            if mounts:
                exc.evidence += mounts.rollback()
            raise
        if mounts:
            mounts.finish()

    def report(self, predicted: bool) -> dict[str, Any]:
        """Return what results show besides before and after."""
        pools, mounts = self.pools, self.mounts
        return {
            "pools": pools.report(predicted) if pools else [],
            "reboot_required": pools is not None and pools.reboot_required,
            "boot_parameters": pools.boot_parameters if pools else [],
            "mounts": mounts.report() if mounts else [],
            "files": [path for plan in self._plans for path in plan.files.changed_paths],
            "left_over": [file.path for plan in self._plans for file in plan.left_over],
        }
