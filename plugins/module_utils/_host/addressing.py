# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a device can use physical addresses as its DMA addresses; without an IOMMU, it has nothing else."""

from __future__ import annotations

import re

from .._base.fs import Root
from .kernel_log import KMSG, read_log
from .processors import cpu_flags

_XEN = "/sys/hypervisor"
_SEV = "/sys/devices/system/cpu/sev"
_CMDLINE = "/proc/cmdline"
# The kernel's words since 5.x; arm64's realms have their own.
_ENCRYPTS = re.compile(r"Memory Encryption Features active: *(?P<name>\S.*)|^(?P<realm>RME: Using RSI version.*)")


def is_encrypted(root: Root) -> str | None:
    """Return what shows that memory is encrypted (SME, SEV, TDX, an arm64 realm); None if nothing does.

    A device then sees other data at an address than the processor does. The log is read last because it takes longest.
    """
    flags = set(cpu_flags(root) or [])
    if "tdx_guest" in flags:
        return "/proc/cpuinfo: the flag tdx_guest"
    if root.exists(_SEV):
        return "%s: exists, as in a guest with encrypted memory (SEV)" % _SEV
    words = (root.read_text(_CMDLINE) or "").split()
    if "sme" in flags and "mem_encrypt=on" in words:
        return "%s: mem_encrypt=on, and the processor has SME" % _CMDLINE
    if _is_intel(root):  # has TDX alone
        return None
    for line in read_log(root).lines:
        if _ENCRYPTS.search(line.text):
            return "%s: %s" % (KMSG, line.text)
    return None


def is_xen_pv(root: Root) -> str | None:
    """Return what shows that this is a paravirtualized Xen domain, where bus addresses are not physical ones."""
    if root.read_text(_XEN, "type") == "xen" and root.read_text(_XEN, "guest_type") == "PV":
        return "%s/guest_type: PV" % _XEN
    return None


def _is_intel(root: Root) -> bool:
    return re.search(r"^vendor_id\s*: GenuineIntel$", root.read_text("/proc/cpuinfo") or "", re.MULTILINE) is not None
