# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way in which a module runs: lock the host, act, exit with the result or fail with the refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, NoReturn, Protocol

from ._base.command import Runner
from ._base.errors import HostError
from ._base.fs import Root
from ._base.lock import unless_check_mode

if TYPE_CHECKING:
    from ._base.change import Change


class Module(Protocol):
    """What is used of an AnsibleModule: nothing in module_utils imports Ansible."""

    params: dict[str, Any]
    check_mode: bool
    _diff: bool

    def exit_json(self, **result: Any) -> NoReturn:
        """End the module."""

    def fail_json(self, **failure: Any) -> NoReturn:
        """End the module with a failure."""

    def warn(self, warning: str) -> None:
        """Show a warning."""


def run(
    module: Module,
    act: Callable[[Root, Runner], dict[str, Any]],
    reads_only: bool = False,
    lock_wait: float | None = None,
) -> NoReturn:
    """Run ``act`` on this host while no other run changes it, and exit with what it returns."""
    root = Root()
    try:
        with unless_check_mode(root, module.check_mode or reads_only, lock_wait):
            result = act(root, Runner())
    except HostError as exc:
        module.fail_json(**exc.as_failure())
    module.exit_json(**result)


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
