# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of virtual functions at boot: one that cannot be set up must not keep the others, nor be bound."""

from __future__ import annotations

from typing import Any, Callable

from .._base.errors import HostError, Refused
from .._devices.control import Kernel
from .._devices.sriov import VfPlan
from .._devices.transaction import Transaction
from .._devices.vf_settings import BENIGN, Settings, in_words
from .._devices.vf_transaction import configure
from .._host.pci import PciBus
from .._policy.guard_context import GuardContext
from . import refusals


class FunctionSetup:
    """Sets the virtual functions of one physical one up."""

    def __init__(
        self, kernel: Kernel, context: GuardContext, plan: VfPlan, declared: set[str], log: Callable[[str], Any]
    ) -> None:
        self._kernel, self._context, self._plan = kernel, context, plan
        self._declared, self._log = declared, log
        self.unfit: set[str] = set()  # addresses of those that nobody may drive as they are
        self.failed = 0

    def apply(self, transaction: Transaction) -> set[str]:
        """Set everything that differs; return the addresses of those that nobody may drive as they are."""
        functions = PciBus(self._kernel.root).functions(self._plan.pf)
        for index, settings in self._plan.to_set.items():
            # What a virtual function is comes first: without the rest, it is as good as nothing was declared.
            identity = {key: value for key, value in settings.items() if key not in BENIGN}
            is_set_up = self._set(transaction, index, identity)
            self._set(transaction, index, {key: settings[key] for key in settings if key in BENIGN})
            if not is_set_up and index in functions:
                self.unfit.add(functions[index].address)
        return self.unfit

    def _set(self, transaction: Transaction, index: int, settings: Settings) -> bool:
        plan = self._plan
        if not settings:
            return True
        try:
            self._refuse_needed(index, settings)
            configure(transaction, plan.pf, {index: settings}, self._declared)
        except HostError as exc:
            self.failed += 1
            self._log("%s: virtual function %d was not set up: %s" % (plan.pf.address, index, exc))
            return False
        self._log("%s: virtual function %d: set %s" % (plan.pf.address, index, in_words(settings)))
        return True

    def _refuse_needed(self, index: int, settings: Settings) -> None:
        """Refuse to change one that existed before and is in use."""
        errors = refusals.set_up(
            self._kernel,
            self._context.fresh(),
            PciBus(self._kernel.root),
            [self._plan._replace(settings={index: settings})],
        )
        if errors:
            raise Refused(errors)
