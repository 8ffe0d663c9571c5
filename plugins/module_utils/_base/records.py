# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's own records on a host: JSON with a version, checked before anything in it is used."""

from __future__ import annotations

import json
from typing import Any, Callable, TypeVar

from .errors import HostError
from .fs import Root
from .paths import ACCESS_RECORD, BINDINGS, ORIGINALS
from .schema import Problem, Schema, fields, problems, require

_VERSION = 1
_T = TypeVar("_T")
# Every record is a mapping; its reader says what has to be in it.
ANY = fields({}, more=True)
# What it means that a record is damaged, and what to do about it.
_DAMAGED = {
    ORIGINALS: (
        "without it devices cannot be put back",
        "Restore the file from a backup, or remove it and accept that the original drivers are not known.",
    ),
    BINDINGS: (
        "without it no boot knows which devices to bind",
        "Remove it, and run the deploy playbook, which writes it anew.",
    ),
    ACCESS_RECORD: (
        "without it nobody knows what was granted to whom",
        "Run the deploy playbook: it says what to do.",
    ),
}
# Whatever a JSON parser can raise: a damaged record is an answer, never a traceback.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def load_json(root: Root, path: str, schema: Schema = ANY) -> dict[str, Any] | None:
    """Read a record of the devices' original or declared state; None if there is none."""
    damage, remedy = _DAMAGED.get(path, ("it is one of this collection's records", "Restore the file from a backup."))
    return load_record(root, path, dict, "%s is unusable, and %s." % (path, damage), remedy, schema)


def load_record(
    root: Root, path: str, parse: Callable[[dict[str, Any]], _T], damage: str, remedy: str, schema: Schema = ANY
) -> _T | None:
    """Return what ``parse`` makes of one of our files, None if there is none.

    A file that is not JSON, has another version, or does not fit ``schema`` is damaged: a HostError named ``record``.
    """
    text = root.read_text(path)
    if text is None and not root.exists(path):
        return None
    try:
        if text is None:
            raise ValueError("it cannot be read")
        data = json.loads(text, parse_constant=_refuse_constant)
        require(data, ANY)
        if data.get("version") != _VERSION:
            raise ValueError("version %r, expected %d" % (data.get("version"), _VERSION))
        require({key: value for key, value in data.items() if key != "version"}, schema)
        return parse(data)
    except _DAMAGE as exc:
        seen = "no key %s" % exc if isinstance(exc, KeyError) else exc
        raise HostError("record", damage, evidence=["%s: %s" % (path, seen)], remedy=remedy) from exc


def sift(entries: list[Any], schema: Schema, where: str) -> tuple[list[Any], list[Problem]]:
    """Return the usable entries of a record's list, and what is wrong with the others: one must not cost all."""
    usable, wrong = [], []
    for index, entry in enumerate(entries):
        found = problems(entry, schema, "%s[%d]" % (where, index))
        wrong += found
        if not found:
            usable.append(entry)
    return usable, wrong


def dump_json(data: dict[str, Any]) -> str:
    """Render one of our files."""
    return json.dumps(dict(data, version=_VERSION), indent=2, sort_keys=True) + "\n"


def _refuse_constant(name: str) -> None:
    raise ValueError("%s is not a number that a record can have" % name)
