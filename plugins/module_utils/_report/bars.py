# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which BARs are write-combined, and which are declared to be."""

from __future__ import annotations

from typing import Iterator, Sequence

from .._base.fs import Root
from .._devices.steps import DeviceState
from .._host.bars import other_types, read_bars
from .._host.pci import PciDevice


def drift(root: Root, device: PciDevice, state: DeviceState, declared: Sequence[int]) -> Iterator[str]:
    """Yield how the BARs of a bound device differ from what is declared."""
    for window in declared:
        if window not in state.bars.combined:
            yield "%s: BAR %d is not write-combined" % (device.address, window)
    for window in state.bars.combined:
        if window not in declared:
            yield "%s: BAR %d is write-combined, which is not declared" % (device.address, window)
    found = read_bars(root, device)
    for window in sorted(set(declared).intersection(state.bars.combined, found)):
        others = other_types(root, found[window])
        if others:
            yield "%s: the kernel's list of memory types has %s for BAR %d" % (
                device.address,
                ", ".join(others),
                window,
            )
