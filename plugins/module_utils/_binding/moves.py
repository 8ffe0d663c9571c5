# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The moves that each device needs: declared devices are bound, recorded ones that are not declared are released."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base.fs import Root
from .._devices.steps import DeviceState, Step, Target, observe, plan
from .._host.bars import Naming
from .._host.iommu import ISOLATED, NONE, UNSAFE
from .._host.pci import PciDevice
from .._policy.kinds import IOMMU


class Move(NamedTuple):
    """What one device needs."""

    device: PciDevice
    now: DeviceState
    want: Target
    steps: list[Step]
    record: dict[str, Any] | None  # the original state, for a device that is released
    is_lost: bool = False  # a virtual function that is removed after it is released

    @property
    def returns(self) -> bool:
        """Whether the device is back with the driver that is recorded, and stays."""
        return self.record is not None and self.device.driver == self.record["driver"] and not self.is_lost

    def unknown(self) -> dict[str, str]:
        """Return in words what no prediction can have: what the kernel decides while the move is made."""
        if not self.steps or self.is_lost:
            return {}
        if self.record is None:
            return {"iommu_group": "assigned at bind"}
        return {"driver": "whichever of the host's drivers wants it"} if self.record.get("probe") else {}

    def predict(self, backend: str | None) -> DeviceState:
        """Return the device's state after the move."""
        now, want = self.now, self.want
        if self.is_lost:
            return DeviceState(now.address, None, None, None, None, False, False, NONE)
        if not self.steps:
            return now
        if self.record is None:
            keeps_group, safety = backend == IOMMU, ISOLATED if backend == IOMMU else UNSAFE
        else:
            keeps_group = not now.in_module
            safety = now.safety if keeps_group else NONE
        return now._replace(
            driver=want.driver,
            driver_override=want.driver_override,
            # The kernel chooses the number when it creates the group.
            group=now.group if keeps_group else None,
            in_module=want.in_module,
            safety=safety,
            bars=now.bars if want.write_combining is None else Naming(want.write_combining, want.write_combining),
        )


def plan_bindings(root: Root, targets: list[tuple[PciDevice, Target]]) -> list[Move]:
    """Plan to bind the declared devices."""
    states = [(device, observe(root, device), want) for device, want in targets]
    return [Move(device, now, want, plan(now, want), None) for device, now, want in states]


def in_words(moves: list[Move]) -> list[str]:
    """Return the steps of these moves, each with its device."""
    return ["%s: %s" % (move.device.address, step) for move in moves for step in move.steps]
