# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the guards again right before a device is unbound: the decision may be minutes old by then."""

from __future__ import annotations

import threading
import time

from .._base.errors import Refused
from .._devices.control import Kernel
from .._devices.held import in_use
from .._devices.originals import Originals
from .._host.pci import PciBus, PciDevice
from .._policy.guard_context import GuardContext
from .._policy.guards import check

# Many devices are unbound at once, and share what one of them has read of the host: for so long after it was read,
# however long reading took.
_FRESH = 0.2


class Recheck:
    """Checks one device after another, called by several threads."""

    def __init__(self, kernel: Kernel, context: GuardContext, originals: Originals) -> None:
        self._kernel, self._originals = kernel, originals
        self._context = context
        self._bus: PciBus | None = None
        self._until = 0.0
        self._lock = threading.Lock()

    def __call__(self, device: PciDevice) -> None:
        """Raise :class:`Refused` with every reason against unbinding the device now."""
        with self._lock:
            bus = self._bus if time.monotonic() < self._until else None
            is_new = bus is None
            if bus is None:
                self._context, bus = self._context.fresh(), PciBus(self._kernel.root)
            guards = check(self._context, bus, bus.get(device.address) or device)
            if is_new:  # it was read by the check
                self._bus, self._until = bus, time.monotonic() + _FRESH
            errors = [guard.refusal() for guard in self._originals.standing(guards, device, bus)]
        errors += in_use(self._kernel, [device]).values()
        if errors:
            raise Refused(errors)
