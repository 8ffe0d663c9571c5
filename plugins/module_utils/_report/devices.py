# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the devices differ from the record of the bindings."""

from __future__ import annotations

from typing import Any, Iterator

from .._base.fs import Root
from .._base.paths import BINDINGS, ORIGINALS, UNIT
from .._base.records import load_json
from .._devices.identity import replaced
from .._devices.originals import is_ours
from .._devices.schemas import ORIGINALS as ORIGINALS_SCHEMA
from .._devices.steps import Target, observe, plan, target
from .._host.pci import PciBus, PciDevice
from . import bars, functions, spdk
from .deployed import Deployed


def drift(root: Root, bus: PciBus, deployed: Deployed, unknown: list[str]) -> Iterator[str]:
    """Yield what differs. What could not be compared is added to ``unknown``, and hides nothing else."""
    if not root.exists(BINDINGS) and root.exists(UNIT):
        yield "%s is missing: the next boot binds nothing" % BINDINGS
    for problem in deployed.damage:
        yield "%s is damaged, and the next boot skips it: %s" % (BINDINGS, problem)
    yield from functions.drift(root, bus, deployed.functions, unknown)
    bindings = deployed.bindings
    if bindings.get("backend"):
        want = target(bindings["backend"], bindings["driver"], bindings["dpdk_pa_hint"])
        for entry in deployed.devices:
            yield from _device(root, bus, entry, want)
        yield from spdk.disks_without_driver(root, bus, {entry["address"] for entry in deployed.devices})
    yield from _unreleased(root, bus)


def _device(root: Root, bus: PciBus, entry: dict[str, Any], want: Target) -> Iterator[str]:
    """Yield how a declared device differs, or that it is another one or gone."""
    device = bus.get(entry["address"])
    if device is None:
        yield "%s is gone" % entry["address"]
    elif device.vendor_device != entry["vendor_device"]:
        yield "%s is %s instead of %s" % (device.address, device.vendor_device, entry["vendor_device"])
    else:
        replacement = replaced(device, bus, entry)
        if replacement:
            yield "%s: %s: deploy again, or no boot binds it" % (device.address, replacement)
        yield from _state(root, device, entry, want)


def _state(root: Root, device: PciDevice, entry: dict[str, Any], want: Target) -> Iterator[str]:
    """Yield the steps that a deploy would take, or how the BARs differ."""
    state = observe(root, device)
    # The BARs are compared below: the steps would not say how they differ.
    steps = plan(state, want._replace(write_combining=None))
    if steps:
        yield "%s: %s%s" % (device.address, ", ".join(map(str, steps)), spdk.after_reset(device, state, want))
    elif state.driver == want.driver:
        yield from bars.drift(root, device, state, entry.get("write_combining", []))


def _unreleased(root: Root, bus: PciBus) -> Iterator[str]:
    """Yield which devices could not be released, and still are not."""
    records = (load_json(root, ORIGINALS, ORIGINALS_SCHEMA) or {}).get("devices", {})
    for address, record in records.items():
        device = bus.get(address)
        is_kept = isinstance(record, dict) and "unreleased" in record
        if is_kept and device is not None and is_ours(root, device):
            yield "%s was not released: %s" % (address, record["unreleased"])
