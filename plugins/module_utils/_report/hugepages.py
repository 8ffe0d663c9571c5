# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the hugepages differ from what the next boot would reserve and mount."""

from __future__ import annotations

import re
from typing import Iterator

from .._base.fs import Root
from .._base.paths import HUGEPAGES_SCRIPT, HUGEPAGES_UNIT, HUGEPAGES_WANTS, HUGETLB_MOUNTS_RECORD
from .._base.records import load_record
from .._base.schema import anything, fields, table
from .._host.hugetlb import persistent
from .._host.mounts import read_mounts

# A declared pool in the script that _hugepages/boot_files.py writes: the pool's directory, and the count.
_POOL = re.compile(r"^reserve '[^'\n]*' (\S+) (\d+) ", re.MULTILINE)
# What is read of the role's record.
_MOUNTED = fields({"mounts": table(anything())}, more=True)


def drift(root: Root) -> Iterator[str]:
    """Yield what differs: counts, boot files, mounts."""
    for directory, count in _POOL.findall(root.read_text(HUGEPAGES_SCRIPT) or ""):
        found = persistent(root, directory)
        if found != int(count):
            yield "%s: %d pages instead of %s" % (directory, found, count)
    boot = (HUGEPAGES_SCRIPT, HUGEPAGES_UNIT, HUGEPAGES_WANTS)
    missing = [path for path in boot if not root.exists(path)]
    if len(missing) < len(boot):
        for path in missing:
            yield "%s is missing: the next boot reserves nothing" % path
    damage, remedy = "The record of the hugetlbfs mounts is damaged.", "Run the deploy playbook."
    mounted = {mount.target for mount in read_mounts(root) if mount.fstype == "hugetlbfs"}
    stored = load_record(root, HUGETLB_MOUNTS_RECORD, dict, damage, remedy, _MOUNTED)
    for path in sorted((stored or {"mounts": {}})["mounts"]):
        if path not in mounted:
            yield "%s is not mounted" % path
