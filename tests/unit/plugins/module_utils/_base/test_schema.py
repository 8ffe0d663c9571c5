# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every kind of schema: what it accepts, and how it names what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.schema import (
    Schema,
    anything,
    choice,
    fields,
    flag,
    items,
    nullable,
    problems,
    require,
    table,
    text,
    whole,
)

DEVICE = fields({"mac": text("[0-9a-f:]+", "a MAC")}, {"count": whole(1), "nodes": items(whole(), "nodes")})


@pytest.mark.parametrize(
    "schema, value",
    [
        (anything(), {"any": [None]}),
        (text(), ""),
        (text("a|b"), "b"),
        (whole(), 0),
        (whole(None), -5),
        (flag(), False),
        (choice("a", None), None),
        (nullable(text()), None),
        (nullable(text()), "a"),
        (items(text()), ["a", "b"]),
        (items(text()), []),
        (table(whole()), {"a": 1, 2: 3}),
        (table(whole(), "[a-z]"), {"a": 1}),
        (DEVICE, {"mac": "52:54"}),
        (DEVICE, {"mac": "52:54", "count": 2, "nodes": [0, 1]}),
        (fields({}, more=True), {"whatever": 1}),
    ],
)
def test_what_fits(schema: Schema, value: Any) -> None:
    assert problems(value, schema) == []
    require(value, schema)


@pytest.mark.parametrize(
    "schema, value, seen",
    [
        (text(), 5, "here: expected a text, found 5"),
        (text(), None, "here: expected a text, found nothing"),
        (text("a|b", "a or b"), "ab", "here: expected a or b, found 'ab'"),
        (text("a"), "a\n", "here: expected a text, found 'a\\n'"),
        (whole(), "1", "here: expected a whole number from 0, found '1'"),
        (whole(), True, "here: expected a whole number from 0, found True"),
        (whole(), -1, "here: expected a whole number from 0, found -1"),
        (whole(), 1.0, "here: expected a whole number from 0, found 1.0"),
        (whole(most=9, what="a digit"), 10, "here: expected a digit, found 10"),
        (flag(), "maybe", "here: expected true or false, found 'maybe'"),
        (flag(), 1, "here: expected true or false, found 1"),
        (choice("a", "b"), ["a"], "here: expected one of a, b, found ['a']"),
        (items(text(), "names"), "abc", "here: expected a list of names, found 'abc'"),
        (items(text()), {"a": 1}, "here: expected a list, found {'a': 1}"),
        (items(text()), ["a", 1], "here[1]: expected a text, found 1"),
        (table(whole()), [], "here: expected a mapping, found []"),
        (table(whole(), "[a-z]"), {"1": 1}, "here: expected a key like [a-z], found '1'"),
        (table(whole()), {"a": "b"}, "here.a: expected a whole number from 0, found 'b'"),
        (DEVICE, "mac", "here: expected a mapping with the keys mac, count, nodes, found 'mac'"),
        (DEVICE, {"mac": "5", "nodes": [0, "x"]}, "here.nodes[1]: expected a whole number from 0, found 'x'"),
        (DEVICE, {"mac": "5", "coumt": 1}, "here.coumt: there is no such key; did you mean count?"),
        (DEVICE, {"mac": "5", "zzz": 1}, "here.zzz: there is no such key; there are mac, count, nodes"),
        (DEVICE, {"mac": "5", 7: 1}, "here.7: there is no such key; there are mac, count, nodes"),
        (DEVICE, {}, "here: the key mac is missing"),
        (text(), ["x" * 99], "here: expected a text, found ['%s..." % ("x" * 58)),
    ],
)
def test_what_does_not_fit_is_named(schema: Schema, value: Any, seen: str) -> None:
    assert list(map(str, problems(value, schema, "here"))) == [seen]
    with pytest.raises(ValueError, match="here"):
        require(value, schema, "here")


def test_everything_that_is_wrong_is_told() -> None:
    assert list(map(str, problems({"count": 0, "x": 1}, DEVICE))) == [
        "count: expected a whole number from 1, found 0",
        "x: there is no such key; there are mac, count, nodes",
        "the key mac is missing",
    ]
