# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way in which a module runs that changes the host: lock the host, act, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, NoReturn

from ._answer import Module, answer
from ._base.command import Runner
from ._base.lock import unless_check_mode

if TYPE_CHECKING:
    from ._base.change import Change
    from ._base.fs import Root


def run(module: Module, act: Callable[[Root, Runner], dict[str, Any]], lock_wait: float | None = None) -> NoReturn:
    """Run ``act`` on this host while no other run changes it, and exit with what it returns."""

    def locked(root: Root) -> dict[str, Any]:
        with unless_check_mode(root, module.check_mode, lock_wait):
            return act(root, Runner())

    answer(module, locked)


def converge(module: Module, change: Change) -> dict[str, Any]:
    """Apply a change unless in check mode; return what every module says of its change."""
    before, changed = change.before(), change.changed
    diff = change.diff() if module._diff else []
    if changed and not module.check_mode:
        change.apply()
    for warning in change.warnings:
        module.warn(warning)
    result = {"changed": changed, "before": before, "after": change.after()}
    return {**result, "diff": diff} if module._diff else result
