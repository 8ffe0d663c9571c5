# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clock, and times as records and results write them."""

from __future__ import annotations

import datetime
from typing import Any

_STAMP = "%Y-%m-%dT%H:%M:%SZ"


def utc_now() -> datetime.datetime:
    """Return the current UTC time. Everything asks for it here, so that tests can set the clock."""
    return datetime.datetime.now(datetime.timezone.utc)


def stamp(moment: datetime.datetime) -> str:
    """Return a time as results show it."""
    return moment.strftime(_STAMP)


def parse_stamp(text: Any) -> datetime.datetime | None:
    """Return the time that a result shows, or None if it is not a time."""
    try:
        return datetime.datetime.strptime(str(text), _STAMP).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
