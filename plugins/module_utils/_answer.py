# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a module answers: act, exit with the result or fail with the refusals. Alone, for one that only reads."""

from __future__ import annotations

from typing import Any, Callable, NoReturn, Protocol

from ._base.errors import HostError
from ._base.fs import Root


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


def answer(module: Module, act: Callable[[Root], dict[str, Any]]) -> NoReturn:
    """Run ``act`` on this host, and exit with what it returns."""
    try:
        result = act(Root())
    except HostError as exc:
        module.fail_json(**exc.as_failure())
    module.exit_json(**result)
