# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that a deploy would have to unbind and cannot: a process drives them, or an earlier request still hangs."""

from __future__ import annotations

from typing import Mapping, NamedTuple

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._devices.steps import UNBIND, observe, plan, target
from .._host.pci import PciDevice
from .._policy.kinds import VFIO_PCI


class Wanted(NamedTuple):
    """What is declared of the devices, as binding them takes it."""

    devices: list[PciDevice]
    lost: list[PciDevice]  # virtual functions that another number of them removes
    backend: str | None
    combined: Mapping[str, tuple[int, ...]]
    pa_hint: bool | None


def refusals(root: Root, wanted: Wanted) -> list[HostError]:
    """Refuse what binding would refuse after packages are installed and the module is built."""
    leaving = [device for device in wanted.devices if _is_unbound(root, wanted, device)]
    if not leaving and not wanted.lost:
        return []
    from .._devices.control import Kernel  # on most hosts nothing has to be unbound, and this not needed
    from .._devices.held import hanging, in_use

    found = hanging(root, [device.address for device in leaving])
    return [*found.values(), *in_use(Kernel(root, Runner()), leaving + wanted.lost).values()]


def _is_unbound(root: Root, wanted: Wanted, device: PciDevice) -> bool:
    """Whether a device has to leave its driver: another one, or vfio-pci in a group that is made anew."""
    if device.driver != VFIO_PCI:
        return device.driver is not None
    if wanted.backend is None:  # refused for that
        return False
    want = target(wanted.backend, VFIO_PCI, wanted.pa_hint, wanted.combined.get(device.address, ()))
    return any(step.action == UNBIND for step in plan(observe(root, device), want))
