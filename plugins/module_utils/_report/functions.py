# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the virtual functions differ from what each boot creates and sets."""

from __future__ import annotations

from typing import Any, Iterator

from .._base.errors import HostError
from .._base.fs import Root
from .._host.pci import PciBus


def drift(root: Root, bus: PciBus, entries: list[dict[str, Any]], unknown: list[str]) -> Iterator[str]:
    """Yield what differs. A driver that does not answer is added to ``unknown``, and hides nothing else."""
    for entry in entries:
        found = root.read_int("/sys/bus/pci/devices", entry["address"], "sriov_numvfs")
        if found != entry["vfs"]:
            yield "%s has %d virtual functions instead of %d" % (entry["address"], found or 0, entry["vfs"])
        try:
            yield from _settings(root, bus, entry)
        except HostError as exc:
            unknown.append("the virtual functions of %s: %s" % (entry["address"], " ".join(str(exc).split())))


def _settings(root: Root, bus: PciBus, entry: dict[str, Any]) -> Iterator[str]:
    if not entry.get("functions"):
        return
    # Few hosts have any, and all would wait for the import.
    from .._devices.sriov import read_settings
    from .._devices.vf_settings import differences, from_record, in_words

    pf, wanted = bus.get(entry["address"]), from_record(entry)
    found = read_settings(root, pf) if pf is not None else {}
    for index, settings in differences(wanted, found).items():
        there = {key: found.get(index, {}).get(key) for key in settings}
        wrong = [key for key in settings if there[key] != settings[key]]
        yield "%s: virtual function %d has %s instead of %s" % (
            entry["address"],
            index,
            in_words({key: there[key] for key in wrong}),
            in_words({key: settings[key] for key in wrong}),
        )
