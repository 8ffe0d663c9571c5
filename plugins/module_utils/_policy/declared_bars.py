# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The BARs that are declared to be write-combined, by device."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from .._base.errors import HostError
from .._base.fs import Root
from .._host.pci import PciDevice


def choose_declared(
    root: Root, declared: Sequence[tuple[PciDevice, Mapping[str, Any]]], driver: str
) -> tuple[dict[str, tuple[int, ...]], list[HostError], list[str]]:
    """Return the BARs of each device by its address, every reason against it, and what cannot be known yet."""
    wishes = [(device, entry["write_combining"]) for device, entry in declared if entry.get("write_combining")]
    if not wishes:
        return {}, [], []
    # Few hosts declare any, and all would wait for the import.
    from .write_combining import choose_bars, platform_refusals

    refusals = platform_refusals(root, driver)
    chosen, unknown = {}, []
    for device, wish in wishes:
        choice = choose_bars(root, device, wish)
        refusals += choice.refusals
        if choice.bars:
            chosen[device.address] = choice.bars
        elif not choice.refusals:
            unknown.append("Which BARs of %s will be write-combined is known when it exists." % device.address)
    return chosen, refusals, unknown
