# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recorded page counts that the host had before this collection first changed them."""

from __future__ import annotations

from typing import Any, Dict, Optional

from .._base.fs import Root
from .._base.paths import HUGEPAGES_RECORD as RECORD
from .._base.records import dump_json, load_record
from .._base.schema import fields, table, whole

# Counts by page size (bytes), then by node; None is the host's total, which the kernel spreads over the nodes.
Counts = Dict[int, Dict[Optional[int], int]]


_SCHEMA = fields({"counts": table(table(whole(), "host|[0-9]+"), "[0-9]+")})


def read(root: Root) -> Counts:
    """Return what is recorded; nothing if there is no record."""
    damage = "The record of the original page counts is damaged."
    remedy = "Remove %s if the original counts do not matter; today's counts are then taken for them." % RECORD
    return load_record(root, RECORD, _parse, damage, remedy, _SCHEMA) or {}


def _parse(stored: dict[str, Any]) -> Counts:
    return {
        int(size): {None if node == "host" else int(node): count for node, count in nodes.items()}
        for size, nodes in stored["counts"].items()
    }


def merge(first: Counts, second: Counts) -> Counts:
    """Return both; where they differ, the first one wins."""
    return {size: {**second.get(size, {}), **first.get(size, {})} for size in sorted({*first, *second})}


def render(counts: Counts) -> str:
    """Return the record's text."""
    stored = {
        str(size): {"host" if node is None else str(node): count for node, count in nodes.items()}
        for size, nodes in counts.items()
    }
    return dump_json({"counts": stored})
