# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turning on an IOMMU that the firmware describes: with which boot parameters, and whether that can be expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import CMDLINE_RECORD
from .._host.iommu import HostIommu

if TYPE_CHECKING:
    from .words import Parameters

OWNER = "iommu"  # of the parameters on the kernel command line
# The other kinds are on wherever nothing switches them off.
_PARAMETERS = {"DMAR": ["intel_iommu=on"]}


class Enabling(NamedTuple):
    """What the kernel command line needs for it."""

    parameters: list[str]
    without: list[str]
    recorded: bool  # this collection has put something there
    pending: bool  # the IOMMU is off, and comes with the next boot
    refusals: list[HostError]

    def report(self) -> dict[str, Any]:
        """Return what noiommu_info shows."""
        return {name: value for name, value in self._asdict().items() if name != "refusals"}


def enabling(root: Root, iommu: HostIommu, wanted: bool) -> Enabling:
    """Decide from the host what turning its IOMMU on takes."""
    if not wanted and not root.exists(CMDLINE_RECORD):  # as on most hosts, which have no IOMMU to be turned on
        return Enabling([], [], False, False, [])
    from .record import CommandLineRecord
    from .words import Parameters, holds, running

    recorded = CommandLineRecord.load(root).owners.get(OWNER)
    if not wanted or iommu.state == "absent":
        return Enabling([], [], recorded is not None, False, [])
    if iommu.state == "active":
        # It works because of what was put there: that has to stay.
        keep = recorded or Parameters([])
        return Enabling(keep.parameters, keep.without, recorded is not None, False, [])
    base = recorded or Parameters([])
    parameters = list(dict.fromkeys(base.parameters + _PARAMETERS.get(iommu.firmware_tables[0], [])))
    without = list(dict.fromkeys([*base.without, *iommu.disabled_by]))
    refusals = []
    words = running(root)
    if holds(words, Parameters(parameters, without)):
        refusals.append(_stays_off(iommu, parameters, words))
    else:
        refusals += _not_to_be_had(root, Parameters(parameters, without))
    return Enabling(parameters, without, recorded is not None, not refusals, refusals)


def _not_to_be_had(root: Root, wanted: Parameters) -> list[HostError]:
    """Return what the step that puts them on the command line would refuse."""
    from .command_line import CommandLinePlan

    try:
        CommandLinePlan(root, Runner(), OWNER, wanted)
    except HostError as exc:
        exc.evidence.insert(0, "wanted by noiommu_enable_iommu (enable_iommu)")
        return [exc]
    return []


def _stays_off(iommu: HostIommu, parameters: list[str], words: list[str]) -> HostError:
    return HostError(
        "iommu_stays_off",
        "The firmware describes an IOMMU (ACPI %s) that no boot parameter turns on." % ", ".join(iommu.firmware_tables),
        evidence=[
            "/sys/class/iommu: no hardware node, though booted with %s"
            % (" ".join(parameters) or "nothing against it"),
            "/proc/cmdline: %s" % " ".join(words),
        ],
        remedy="Look for the reason in `dmesg | grep -i -e DMAR -e AMD-Vi -e iommu` and in the firmware setup; it takes"
        " %s. To do without it, take noiommu_enable_iommu (enable_iommu) back." % iommu.enable_with,
    )
