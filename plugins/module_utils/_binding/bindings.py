# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of the bindings, by which each boot binds the devices."""

from __future__ import annotations

from typing import Any

from .._base import times
from .._base.fs import Root
from .._base.paths import BINDINGS
from .._base.records import load_json
from .._devices.identity import identity, interface_state, permanent_macs
from .._devices.originals import Originals
from .._devices.sriov import VfPlan
from .._devices.vf_settings import to_record
from .._host.pci import PciBus, PciDevice
from .._policy import acceptance
from .request import Request

# What an entry takes from the original, if the device has it.
_IDENTITY = ("vendor_device", "serials", "slot", "vf")


def content(
    root: Root,
    bus: PciBus,
    request: Request,
    backend: str | None,
    devices: list[tuple[PciDevice, tuple[int, ...]]],
    originals: Originals,
    vf_plans: list[VfPlan],
) -> dict[str, Any]:
    """Return what the record must say; each device comes with the BARs that are to be write-combined."""
    bindings: dict[str, Any] = {
        "backend": backend,
        "driver": request.driver,
        "dpdk_pa_hint": request.dpdk_pa_hint,
        "devices": [_entry(device.address, bars, originals) for device, bars in devices],
        **acceptance.for_record(load_json(root, BINDINGS), backend, request.insecure_until, times.utc_now()),
    }
    pfs = {plan.pf.address: plan for plan in vf_plans if plan.record is None}
    if pfs:
        bindings["sriov"] = [_pf_entry(plan, bus) for _address, plan in sorted(pfs.items())]
    return bindings


def _entry(address: str, bars: tuple[int, ...], originals: Originals) -> dict[str, Any]:
    record = originals.devices[address]
    known = {key: record[key] for key in _IDENTITY if key in record}
    if bars:
        known["write_combining"] = list(bars)
    return dict(known, address=address, macs=originals.macs(address))


def _pf_entry(plan: VfPlan, bus: PciBus) -> dict[str, Any]:
    pf = plan.pf
    entry = dict(identity(pf, bus), address=pf.address, vfs=plan.want, macs=permanent_macs(interface_state(pf)))
    return dict(entry, functions=to_record(plan.settings)) if plan.settings else entry
