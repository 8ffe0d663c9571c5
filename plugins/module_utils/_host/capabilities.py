# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's capabilities by name and number."""

from __future__ import annotations

from .._base.errors import HostError

# The index is the number of the capability (include/uapi/linux/capability.h).
CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
        " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT"
        " SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL"
        " SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)


def parse(names: list[str]) -> list[str]:
    """Return capabilities by their full names in the order of their numbers."""
    full = {name if name.startswith("CAP_") else "CAP_" + name for name in (given.strip().upper() for given in names)}
    unknown = sorted(full.difference(CAPABILITIES))
    if unknown:
        raise HostError(
            "capability",
            "There is no capability %s." % ", ".join(unknown),
            evidence=["known are CAP_CHOWN to %s" % CAPABILITIES[-1]],
            remedy="Use the names of capabilities(7), with or without CAP_.",
        )
    return [name for name in CAPABILITIES if name in full]


def mask(names: list[str]) -> int:
    """Return capabilities as a bit mask."""
    return sum(1 << CAPABILITIES.index(name) for name in names)


def names(bits: int) -> list[str]:
    """Return the capabilities of a bit mask; a newer kernel's by number."""
    return [
        CAPABILITIES[bit] if bit < len(CAPABILITIES) else "capability %d" % bit
        for bit in range(bits.bit_length())
        if bits >> bit & 1
    ]
