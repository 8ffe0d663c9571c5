# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The forms in which an operator names devices. Whether the host has them is another question."""

from __future__ import annotations

import re
from typing import Any, Sequence

from .._host.pci import normalise_bdf
from .selector_errors import malformed

_VENDOR_DEVICE = re.compile(r"^[0-9a-f]{4}:[0-9a-f]{4}$")
_MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")
_INDEXES = re.compile(r"^(\d+)(?:-(\d+))?$")


def parse_addresses(value: str) -> list[tuple[str, str]]:
    """Return the first and the last address of each part of a list; one address is both."""
    found = []
    for part in value.split(","):
        first, dash, last = part.partition("-")
        low = normalise_bdf(first)
        high = normalise_bdf(last) if dash else low
        if low[:-8] != high[:-8] or low > high:
            raise malformed(
                part,
                "a range of PCI addresses",
                "two addresses of one domain, the lower one first",
                "0000:04:00.0-0000:04:00.3",
            )
        found.append((low, high))
    return found


def parse_vendor_device(value: str) -> str:
    """Return a vendor and device number, or those of a subsystem."""
    text = value.strip().lower()
    if not _VENDOR_DEVICE.match(text):
        raise malformed(
            text,
            "a vendor:device pair",
            "two numbers of four hexadecimal digits each, for example 8086:10d3",
            "`lspci -n` (`lspci -nv` for the subsystem) shows it",
        )
    return text


def parse_mac(value: str) -> str:
    """Return a MAC address as the kernel shows it."""
    mac = plain_mac(value)
    if not _MAC.match(mac):
        raise malformed(
            value,
            "a MAC address",
            "six pairs of hexadecimal digits, for example 52:54:00:12:34:56",
            "`ip link` shows it",
        )
    return mac


def is_mac(value: str) -> bool:
    """Whether a text is a MAC address."""
    return bool(_MAC.match(plain_mac(value)))


def plain_mac(value: str) -> str:
    return value.strip().lower().replace("-", ":")


def parse_indexes(texts: Sequence[str], every: Sequence[int] = ()) -> list[int]:
    """Return the indexes of virtual functions; ``every`` is what ``all`` means."""
    found: list[int] = []
    for text in texts or ["all"]:
        match = _INDEXES.match(text.strip())
        low, high = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (0, 0)
        if text.strip() == "all":
            found += every
        elif match is None or low > high:
            raise malformed(
                text,
                "an index of a virtual function",
                "a number, a range such as 0-3, or all",
                "/sys/bus/pci/devices/<pf>/virtfn<index> shows it",
            )
        else:
            found += range(low, high + 1)
    return sorted(set(found))


def texts(value: Any) -> list[str]:
    """Return a list of texts as Ansible makes it of a single value."""
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else str(value).split(",")
