# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to the noiommu module that name the BARs which vfio-pci maps write-combined."""

from __future__ import annotations

import errno
import re
from typing import Sequence

from .._base.errors import HostError
from .._base.paths import MODULE, WRITE_COMBINING
from .._host.bars import read_naming
from .._host.pci import PciDevice
from .._policy.write_combining import CODE
from .control import Kernel

# What the module means by each errno.
_MEANINGS = {
    errno.EINVAL: "as far as the kernel knows, there are registers in it",
    errno.ENODEV: "the device is gone, or is being plugged",
    errno.EBUSY: "a driver is bound to the device",
    errno.EPERM: "CAP_SYS_RAWIO is missing",
    errno.EOPNOTSUPP: "this platform keeps no list of memory types (PAT)",
}
_REASON = re.compile(r"BAR \d (?:is not|will not be|stays) write-combined: (.*)")
_REMEDY = "Look at the last lines of `dmesg`. Without write_combining, the device works as it did before."


def combine(kernel: Kernel, device: PciDevice, window: int) -> None:
    """Have a BAR mapped write-combined by the next vfio-pci."""
    if window not in read_naming(kernel.root, device.address).named:
        _request(kernel, device, "+", window)


def uncombine(kernel: Kernel, device: PciDevice, window: int) -> None:
    """Have a BAR mapped as usual again."""
    if window in read_naming(kernel.root, device.address).named:
        _request(kernel, device, "-", window)


def require_combined(kernel: Kernel, device: PciDevice, bars: Sequence[int]) -> None:
    """Raise HostError unless these BARs are write-combined: binding succeeds without."""
    combined = read_naming(kernel.root, device.address).combined
    for window in bars:
        if window not in combined:
            lines = _lines(kernel, device)
            raise _error(
                device, window, _reason(lines) or "the module does not say why", ["%s: off" % WRITE_COMBINING, *lines]
            )


def _request(kernel: Kernel, device: PciDevice, sign: str, window: int) -> None:
    if not kernel.root.exists(WRITE_COMBINING):
        raise _unknown(kernel, device, window)
    try:
        kernel.root.write_sysfs(WRITE_COMBINING, "%s%s %d\n" % (sign, device.address, window))
    except HostError as exc:
        if exc.errno not in _MEANINGS:
            raise
        lines = _lines(kernel, device)
        reason = _reason(lines) or _MEANINGS[exc.errno]
        error = _error(device, window, reason, exc.evidence + lines)
        error.errno = exc.errno
        raise error from exc


def _unknown(kernel: Kernel, device: PciDevice, window: int) -> HostError:
    """Return the error of a module that is not loaded, or is the one of before an upgrade."""
    reason = "the kernel module noiommu is not loaded"
    if kernel.root.exists(MODULE):
        reason = "the loaded kernel module noiommu is of an earlier version, which knows no write combining"
    error = _error(device, window, reason, ["%s: absent" % WRITE_COMBINING])
    error.remedy = "Reboot into a kernel for which the present version is installed, then deploy again."
    return error


def _lines(kernel: Kernel, device: PciDevice) -> list[str]:
    return kernel.log_lines(device.address)


def _reason(lines: list[str]) -> str | None:
    """Return the reason that the module gave last; one errno may mean several things."""
    matches = [match for match in map(_REASON.search, lines) if match]
    return matches[-1].group(1) if matches else None


def _error(device: PciDevice, window: int, reason: str, evidence: list[str]) -> HostError:
    return HostError(
        CODE, "BAR %d of %s is not write-combined: %s." % (window, device.address, reason), evidence, _REMEDY
    )
