# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's own records on a host: JSON with a version."""

from __future__ import annotations

import json
from typing import Any, Callable, TypeVar

from .errors import HostError
from .fs import Root

_VERSION = 1
_T = TypeVar("_T")


def load_json(root: Root, path: str) -> dict[str, Any] | None:
    """Read the record of what devices were or of what they are to be; None if there is none."""
    return load_record(
        root,
        path,
        dict,
        "%s is unusable, and without it devices cannot be put back." % path,
        "Restore the file from a backup, or remove it and accept that the original drivers are not known.",
    )


def load_record(root: Root, path: str, parse: Callable[[dict[str, Any]], _T], damage: str, remedy: str) -> _T | None:
    """Return what ``parse`` makes of one of our files, None if there is none; if it cannot, the file is damaged."""
    text = root.read_text(path)
    if text is None and not root.exists(path):
        return None
    try:
        if text is None:
            raise ValueError("it cannot be read")
        data = json.loads(text)
        if data["version"] != _VERSION:
            raise ValueError("version %r, expected %d" % (data["version"], _VERSION))
        return parse(data)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        seen = "no key %s" % exc if isinstance(exc, KeyError) else exc
        raise HostError("record", damage, evidence=["%s: %s" % (path, seen)], remedy=remedy) from exc


def dump_json(data: dict[str, Any]) -> str:
    """Render one of our files."""
    return json.dumps(dict(data, version=_VERSION), indent=2, sort_keys=True) + "\n"
