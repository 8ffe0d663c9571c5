# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What SELinux has denied on a host, without what changes from one time to the next."""

from __future__ import annotations

import re

from live import on

FIELDS = ("comm", "scontext", "tcontext", "tclass")


def parse(log: str) -> set[str]:
    """Return each denial once: what was denied, to which program of which domain, on what."""
    found = set()
    for line in log.splitlines():
        denied = re.search(r"avc: +denied +\{ ([^}]+) \}", line)
        if denied:
            values = [re.search(rf'\b{field}="?([^" ]+)', line) for field in FIELDS]
            found.add(" ".join([denied[1], *(value[1] if value else "-" for value in values)]))
    return found


def denials(name: str) -> set[str]:
    """Return those of this boot: from the kernel's log until auditd runs, and from its own log afterwards."""
    return parse(
        on(
            name,
            "journalctl -b -k -o cat --no-pager | grep avc: || true;"
            " ausearch --raw -m AVC,USER_AVC,SELINUX_ERR -ts boot 2>/dev/null || true",
        )
    )
