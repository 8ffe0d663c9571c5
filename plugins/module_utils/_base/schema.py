# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What data from outside must look like: records on a host, and what an operator declares.

A schema is a function that yields everything that is wrong with a value, each with its place, such as devices[2].mac.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator, Mapping, NamedTuple

from .errors import HostError

_SHOWN = 60  # characters of a wrong value in a message
_ALIKE = 0.6  # how alike two names have to be (1: the same) for a suggestion


class Problem(NamedTuple):
    """One thing that is wrong."""

    where: str
    what: str

    def __str__(self) -> str:
        return "%s: %s" % (self.where, self.what) if self.where else self.what


Schema = Callable[[Any, str], Iterator[Problem]]


def problems(value: Any, schema: Schema, where: str = "") -> list[Problem]:
    """Return everything that is wrong with a value."""
    return list(schema(value, where))


def require(value: Any, schema: Schema, where: str = "") -> None:
    """Raise ValueError with everything that is wrong with a value."""
    found = problems(value, schema, where)
    if found:
        raise ValueError("; ".join(map(str, found)))


def anything() -> Schema:
    """Accept whatever is there, for parts that are checked on their own."""
    return lambda value, where: iter(())


def text(pattern: str = "", what: str = "a text") -> Schema:
    """Accept a string that matches all of a pattern."""
    compiled = re.compile("(?:%s)\\Z" % pattern, re.DOTALL) if pattern else None

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, str) or (compiled is not None and not compiled.match(value)):
            yield expected(what, value, where)

    return check


def whole(least: int | None = 0, most: int = 2**63, what: str = "") -> Schema:
    """Accept a whole number, which True and False are not."""
    name = what or ("a whole number" if least is None else "a whole number from %d" % least)

    def check(value: Any, where: str) -> Iterator[Problem]:
        fits = isinstance(value, int) and not isinstance(value, bool) and value <= most
        if not fits or (least is not None and value < least):
            yield expected(name, value, where)

    return check


def flag() -> Schema:
    """Accept true or false."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, bool):
            yield expected("true or false", value, where)

    return check


def choice(*values: Any) -> Schema:
    """Accept one of these values."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, (str, int, type(None))) or value not in values:
            yield expected("one of " + ", ".join(map(str, values)), value, where)

    return check


def nullable(schema: Schema) -> Schema:
    """Accept None as well."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if value is not None:
            yield from schema(value, where)

    return check


def items(schema: Schema, each: str = "") -> Schema:
    """Accept a list of such values; ``each`` says what an entry is."""

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, (list, tuple)):
            yield expected("a list" + (" of %s" % each if each else ""), value, where)
            return
        for index, entry in enumerate(value):
            yield from schema(entry, "%s[%d]" % (where, index))

    return check


def table(schema: Schema, key: str = "") -> Schema:
    """Accept a mapping of any keys, or of those that match a pattern, to such values."""
    named = text(key, "a key like %s" % key) if key else anything()

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield expected("a mapping", value, where)
            return
        for name, entry in value.items():
            yield from named(name, where)
            yield from schema(entry, _below(where, name))

    return check


def fields(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, more: bool = False) -> Schema:
    """Accept a mapping with these keys, and others only if there may be ``more``."""
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield expected("a mapping with the keys %s" % ", ".join(known), value, where)
            return
        for name in value:
            if name in known:
                yield from known[name](value[name], _below(where, name))
            elif not more:
                yield Problem(_below(where, name), "there is no such key; " + _nearest(name, known))
        for name in required:
            if name not in value:
                yield Problem(where, "the key %s is missing" % name)

    return check


def _below(where: str, name: Any) -> str:
    shown = _brief(name) if not isinstance(name, str) else name
    return "%s.%s" % (where, shown) if where else shown


def _nearest(name: Any, known: Mapping[str, Schema]) -> str:
    import difflib  # only where something is wrong: it is slow to import

    nearest = difflib.get_close_matches(str(name).lower(), known, 1, _ALIKE)
    return "did you mean %s?" % nearest[0] if nearest else "there are " + ", ".join(known)


def expected(what: str, value: Any, where: str) -> Problem:
    """Return the problem of a value that is something else."""
    return Problem(where, "expected %s, found %s" % (what, _brief(value)))


def refused(exc: HostError, where: str) -> Problem:
    """Return as a problem what the code for hosts has refused."""
    return Problem(where, "%s %s." % (exc.message, "; ".join(exc.evidence)))


def _brief(value: Any) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
