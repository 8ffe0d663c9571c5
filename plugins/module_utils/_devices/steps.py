# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compute the steps from a device's current to its desired state, as plain data."""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple

from .._base.fs import Root
from .._host.bars import Naming, read_naming
from .._host.iommu import NODES, NONE, OUR_PREFIX, classify, group_alone
from .._host.pci import PciDevice
from .._policy.kinds import BUILTIN, DKMS, VFIO_PCI
from .hanging import hanging

OVERRIDE, UNBIND, REMOVE, ADD, BIND = "override", "unbind", "remove", "add", "bind"
COMBINE, UNCOMBINE = "combine", "uncombine"


class DeviceState(NamedTuple):
    """Everything about a device that a binding changes."""

    address: str
    driver: str | None
    driver_override: str | None
    group: int | None
    group_name: str | None
    in_module: bool  # the noiommu module holds it
    pa_hint: bool  # its node tells DPDK to use physical addresses
    safety: str
    bars: Naming = Naming((), ())  # which of its BARs vfio-pci maps write-combined

    def report(self) -> dict[str, Any]:
        """Return what module results show of it."""
        return {
            "address": self.address,
            "driver": self.driver,
            "driver_override": self.driver_override,
            "iommu_group": self.group,
            "safety": self.safety,
            "write_combining": list(self.bars.combined),
        }


class Target(NamedTuple):
    """What a device must become."""

    driver: str | None
    driver_override: str | None
    in_module: bool
    pa_hint: bool | None = None  # None: whatever it is
    group_name: str | None = None  # None: whatever it is
    write_combining: tuple[int, ...] | None = None  # the BARs to map so; None: whatever they are


class Step(NamedTuple):
    """One request to the kernel."""

    action: str
    value: Any = None

    def __str__(self) -> str:
        return {
            OVERRIDE: "set driver_override to %s" % (self.value or "nothing"),
            UNBIND: "unbind from %s" % self.value,
            REMOVE: "remove from the noiommu module",
            ADD: "add to the noiommu module",
            COMBINE: "have BAR %s mapped write-combined" % self.value,
            UNCOMBINE: "have BAR %s mapped uncached" % self.value,
            BIND: "bind to %s" % self.value,
        }[self.action]


def observe(root: Root, device: PciDevice) -> DeviceState:
    """Read a device's state; a planned device has none, whatever is at its address now."""
    if device.planned:
        return DeviceState(device.address, None, None, None, None, False, False, NONE)
    number = device.iommu_group
    group = None if number is None else group_alone(root, number)
    node = OUR_PREFIX + device.address
    return DeviceState(
        device.address,
        device.driver,
        # Reading it would hang, too.
        None if hanging(root, device.address) else device.driver_override,
        number,
        group.name if group else None,
        root.exists(NODES, node),
        root.exists(NODES, node, "intel-iommu/cap"),
        classify(root, device, group).level,
        read_naming(root, device.address),
    )


def plan(now: DeviceState, want: Target) -> list[Step]:
    """Return the steps from any state to the desired one; none if it is reached.

    The override comes first: from then on no other driver can bind. It does not affect a bound driver.
    """
    steps = []
    if now.driver_override != want.driver_override:
        steps.append(Step(OVERRIDE, want.driver_override))
    hint_differs = want.pa_hint is not None and now.in_module and now.pa_hint != want.pa_hint
    remake_group = now.in_module != want.in_module or (want.in_module and hint_differs)
    wrong_group = want.group_name is not None and now.group_name not in (None, want.group_name)
    rebind = now.driver != want.driver or remake_group or wrong_group or _is_mapped_otherwise(now, want)
    if rebind and now.driver is not None:
        steps.append(Step(UNBIND, now.driver))
    if now.in_module and remake_group:
        steps.append(Step(REMOVE))
    if want.in_module and remake_group:
        steps.append(Step(ADD, want.pa_hint is not False))
    if want.write_combining is not None and (rebind or now.driver is None):  # a driver forbids it
        steps += [Step(UNCOMBINE, window) for window in now.bars.named if window not in want.write_combining]
        steps += [Step(COMBINE, window) for window in want.write_combining if window not in now.bars.named]
    if rebind and want.driver is not None:
        steps.append(Step(BIND, want.driver))
    return steps


def _is_mapped_otherwise(now: DeviceState, want: Target) -> bool:
    """Whether VFIO maps other BARs write-combined than are wanted. What the host's drivers map is their affair."""
    if want.write_combining is None or now.driver != VFIO_PCI:
        return False
    return now.bars.named != want.write_combining or now.bars.combined != want.write_combining


def target(backend: str, driver: str, pa_hint: bool | None, write_combining: Iterable[int] = ()) -> Target:
    """Return the target of a device that is to be bound."""
    bars = tuple(sorted(write_combining))
    if backend == DKMS:
        return Target(driver, driver, True, pa_hint, "noiommu", bars)
    if backend == BUILTIN:
        return Target(driver, driver, False, None, "vfio-noiommu", bars)
    return Target(driver, driver, False, write_combining=bars)


def release_target(record: dict[str, Any]) -> Target:
    """Return the target that leads back to a recorded original."""
    return Target(
        record["driver"],
        record["driver_override"],
        False,
        write_combining=tuple(record.get("write_combining", ())),
    )
