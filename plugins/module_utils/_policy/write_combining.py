# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which BARs of a device may be mapped write-combined, and why others must not be.

Write combining merges and reorders stores. That is right for memory and wrong for registers, and no attribute tells
them apart: many devices say that their registers are prefetchable, so that firmware places them above 4 GiB.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

from .._base.errors import HostError
from .._base.fs import Root
from .._host.addressing import is_xen_pv
from .._host.bars import BARS, Bar, Special, read_bars, read_special
from .._host.pci import PciDevice
from .._host.processors import CPUINFO, cpu_flags
from .kinds import VFIO_PCI

CODE = "write_combining"
PREFETCHABLE = "prefetchable"
_PAGE = 4096
_NUMBER = re.compile(r"[0-%d]\Z" % BARS[-1])
# Registers in BARs that are prefetchable all the same: vendor (or none), class, number of the BAR, whose.
_REGISTERS = (
    ("8086", "02", 0, "Intel's network controllers (ice, i40e, iavf, ixgbe and others)"),
    ("14e4", "02", 0, "Broadcom's network controllers (bnxt, bnx2x)"),
    ("", "0108", 0, "NVMe controllers"),
)


class Objection(NamedTuple):
    """Why one BAR must not be write-combined, and what shows it."""

    reason: str
    seen: str


class Choice(NamedTuple):
    """Which BARs of a device will be write-combined, or every reason against it."""

    bars: tuple[int, ...]
    refusals: list[HostError]


def platform_refusals(root: Root, driver: str) -> list[HostError]:
    """Return why no BAR on this host can be write-combined."""
    seen = _platform(root)
    refusals = []
    if seen is not None:
        refusals.append(
            HostError(
                CODE,
                "Write combining is not possible on this host: %s." % seen.reason,
                evidence=[seen.seen],
                remedy="Remove write_combining from the entries of noiommu_devices (devices) for this host.",
            )
        )
    if driver != VFIO_PCI:
        refusals.append(
            HostError(
                CODE,
                "Only what vfio-pci maps can be write-combined, and the driver is to be %s." % driver,
                evidence=["driver: %s" % driver],
                remedy="Use vfio-pci, or remove write_combining.",
            )
        )
    return refusals


def _platform(root: Root) -> Objection | None:
    flags = cpu_flags(root)
    if flags is None:
        return Objection(
            "only x86 processors let the kernel choose how others map a device's memory", "%s: no flags" % CPUINFO
        )
    if "pat" not in flags:
        return Objection("its processor has no page attribute table (PAT)", "%s: no flag pat" % CPUINFO)
    if "nopat" in (root.read_text("/proc/cmdline") or "").split():
        return Objection("the kernel was told not to use the page attribute table (PAT)", "/proc/cmdline: nopat")
    xen = is_xen_pv(root)
    if xen is not None:
        return Objection("in a paravirtualized Xen domain the kernel does not know where a device's memory is", xen)
    return None


def parse_bars(declared: Sequence[str]) -> None:
    """Refuse what no device can have: anything but numbers of BARs, or the word for all that hold data only."""
    wrong = [text for text in declared if text != PREFETCHABLE and not _NUMBER.match(text)]
    if wrong or (PREFETCHABLE in declared and len(declared) > 1):
        raise HostError(
            CODE,
            "%r is not a choice of BARs." % ", ".join(declared),
            evidence=["expected numbers from 0 to %d, or prefetchable alone" % BARS[-1]],
            remedy="Write it as a list such as [2], or as prefetchable.",
        )


def choose_bars(root: Root, device: PciDevice, declared: Sequence[str]) -> Choice:
    """Return the BARs that an entry declares, or every reason against them."""
    try:
        parse_bars(declared)
    except HostError as exc:
        return Choice((), [exc])
    if device.planned:  # what its BARs are is known when it exists
        return Choice(tuple(sorted(map(int, set(declared) - {PREFETCHABLE}))), [])
    bars, special = read_bars(root, device), read_special(root, device)
    if PREFETCHABLE in declared:
        return _prefetchable(device, bars, special)
    numbers = sorted(set(map(int, declared)))
    objections = [(number, objection(device, bars, special, number)) for number in numbers]
    refusals = [_refusal(device, number, found) for number, found in objections if found is not None]
    return Choice(() if refusals else tuple(numbers), refusals)


def objection(device: PciDevice, bars: dict[int, Bar], special: Special | None, number: int) -> Objection | None:
    """Return why this BAR must not be write-combined, as far as can be known."""
    window = bars.get(number)
    where = device.path + "/resource"
    if window is None:
        below = bars.get(number - 1)
        if below is not None and below.is_wide:
            return Objection("BAR %d has 64 bits and takes its place" % below.number, "%s: %s" % (where, below))
        return Objection("the device has no such BAR", "%s: %s" % (where, _listed(bars)))
    seen = "%s: %s" % (where, window)
    if not window.is_memory:
        return Objection("it is no memory, but I/O", seen)
    if window.is_unset:
        return Objection("neither firmware nor kernel gave it an address", seen)
    if not window.is_prefetchable:
        return Objection("it is not prefetchable, so it holds registers", seen)
    if window.start % _PAGE or window.size % _PAGE:
        return Objection("it is not made of whole pages", seen)
    return _registers(device, window, special)


def _registers(device: PciDevice, window: Bar, special: Special | None) -> Objection | None:
    config = device.path + "/config"
    if special is None:
        return Objection("what is in it cannot be told, as the device's configuration space cannot be read", config)
    if window.number in special.msix:
        return Objection("it holds the MSI-X table or its pending bits", "%s: capability MSI-X" % config)
    if window.number in special.virtio:
        return Objection("it holds registers of virtio", "%s: vendor-specific capabilities" % config)
    for vendor, kind, number, whose in _REGISTERS:
        if number == window.number and vendor in ("", device.vendor) and device.class_code.startswith(kind):
            seen = "%s is %s, class %s" % (device.address, device.vendor_device, device.class_code)
            return Objection("BAR %d of %s holds registers that must be written in order" % (number, whose), seen)
    return None


def _prefetchable(device: PciDevice, bars: dict[int, Bar], special: Special | None) -> Choice:
    """Return the BARs that hold no registers as far as can be told: these must then be in another one."""
    objections = {number: objection(device, bars, special, number) for number in bars}
    numbers = tuple(number for number, found in objections.items() if found is None)
    msix = special.msix if special is not None else frozenset()
    elsewhere = [
        window.number
        for window in bars.values()
        if window.is_memory and not window.is_prefetchable and window.number not in msix
    ]
    if numbers and elsewhere:
        return Choice(numbers, [])
    evidence = ["%s: %s" % (bars[number], found.reason) for number, found in objections.items() if found is not None]
    evidence += ["%s: it may hold the registers, as no other one does" % str(bars[number]) for number in numbers]
    return Choice(
        (),
        [
            HostError(
                CODE,
                "No BAR of %s (%s) is known to hold data only." % (device.address, device.vendor_device),
                evidence=evidence or ["%s/resource: no BAR" % device.path],
                remedy="Look into the device's manual, and name the BARs by number (write_combining: [2]), or leave"
                " write_combining out.",
            )
        ],
    )


def _listed(bars: dict[int, Bar]) -> str:
    return "; ".join(map(str, bars.values())) or "none"


def _refusal(device: PciDevice, number: int, found: Objection) -> HostError:
    return HostError(
        CODE,
        "BAR %d of %s cannot be write-combined: %s." % (number, device.address, found.reason),
        evidence=[found.seen],
        remedy="Name a BAR that holds data only, which the device's manual says, or leave write_combining out.",
    )
