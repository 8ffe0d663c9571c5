# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bind the declared devices and release the others in one transaction, or roll everything back."""

from __future__ import annotations

from typing import Any

from .._devices.control import Kernel
from .._host.pci import PciDevice
from .._policy.guard_context import GuardContext
from . import prediction
from .plan import BindingPlan
from .request import Request


class BindingChange:
    """One call. The constructor decides everything and changes nothing; :meth:`apply` does it."""

    def __init__(self, kernel: Kernel, context: GuardContext, request: Request, check_mode: bool = False) -> None:
        """Raise :class:`Refused` with every reason against the request."""
        self.kernel, self.root = kernel, kernel.root
        self._plan = BindingPlan(kernel, context, request, check_mode)
        self._applied = False
        self.messages, self.warnings = self._plan.messages, self._plan.warnings

    # --- reporting ---

    @property
    def backend(self) -> str | None:
        """The backend of the declared devices."""
        return self._plan.backend

    @property
    def devices(self) -> list[PciDevice]:
        """The declared devices."""
        return self._plan.devices

    @property
    def steps(self) -> list[str]:
        """Describe everything that will be done, in order."""
        return prediction.steps(self._plan)

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return prediction.has_changes(self._plan)

    def before(self) -> dict[str, Any]:
        """Return the state that was found."""
        return prediction.before(self._plan)

    def after(self) -> dict[str, Any]:
        """Return the state reached, before :meth:`apply` the one that will be."""
        return prediction.reached(self._plan) if self._applied else prediction.after(self._plan)

    def diff(self) -> list[dict[str, str]]:
        """Return what --diff shows: devices first, then files."""
        unknown = {} if self._applied else prediction.unknown(self._plan)
        before, after = prediction.as_text(self.before()), prediction.as_text(self.after(), unknown)
        devices = [{"before_header": "devices", "after_header": "devices", "before": before, "after": after}]
        return (devices if before != after else []) + self._plan.files.diff()

    @property
    def unreleased(self) -> list[dict[str, str]]:
        """The devices that could not be released, and why."""
        return [{"address": address, "reason": reason} for address, reason in sorted(self._plan.kept.items())]

    def resolved(self, after: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the declared devices with their identity and their state."""
        return prediction.resolved(self._plan, after)

    # --- changing the host ---

    def apply(self) -> None:
        """Make all changes, or roll everything back and raise."""
        # A run that changes nothing loads nothing of this.
        from .execution import Execution

        execution = Execution(self._plan, self.messages, self.warnings)
        execution.run()
        self._plan, self._applied = execution.plan, True
