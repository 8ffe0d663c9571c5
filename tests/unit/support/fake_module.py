# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in for AnsibleModule where a module's run function is called in-process."""

from __future__ import annotations

from typing import Any, NoReturn


class FakeModule:
    """Keeps what the module returns instead of printing it and leaving."""

    def __init__(self, params: dict[str, Any], check_mode: bool = False, diff: bool = True) -> None:
        self.params = params
        self.check_mode = check_mode
        self._diff = diff
        self.result: dict[str, Any] = {}
        self.failure: dict[str, Any] = {}
        self.warnings: list[str] = []

    def exit_json(self, **result: Any) -> None:
        """Keep the result."""
        self.result = result

    def fail_json(self, **failure: Any) -> NoReturn:
        """Keep the failure and leave, as whoever calls this relies on it."""
        self.failure = failure
        raise SystemExit(1)

    def warn(self, text: str) -> None:
        """Keep the warning."""
        self.warnings.append(text)
