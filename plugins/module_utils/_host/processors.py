# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the processors can do."""

from __future__ import annotations

import re

from .._base.fs import Root

CPUINFO = "/proc/cpuinfo"


def cpu_flags(root: Root) -> list[str] | None:
    """Return the flags of an x86 processor; None on others, which list theirs under another name."""
    match = re.search(r"^flags\s*:(.*)$", root.read_text(CPUINFO) or "", re.MULTILINE)
    return match.group(1).split() if match else None
