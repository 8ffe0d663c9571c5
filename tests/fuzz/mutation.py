# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small changes of a sample, chosen by a string of bytes: one thing to draw, and one to shrink."""

from __future__ import annotations

import copy
from typing import Any, Iterator

# What parsers stumble over.
TOKENS = (
    *(b"", b"\0", b"\n", b"\r", b"\t", b" ", b"-", b"-1", b"0", b"1e999", b"9" * 30, b"0x", b"NaN", b"null", b"true"),
    *(
        b"{}",
        b"[]",
        b"{",
        b"]",
        b'"',
        b"'",
        b"\\",
        b"\\x2d",
        b"\\040",
        b"=",
        b":",
        b";",
        b"#",
        b",",
        b"/",
        b"../",
        b"%",
    ),
    *(b"%s", b"@", b"*", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xe2\x80\xae", b"A" * 300, b"[" * 400),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**200, 1.5, float("inf"), float("nan"), "", "x", "0", "\0", "\n"),
    *("../", "\ud800", "\u202e", "A" * 300, [], [[]], [None], {}, {"": None}, {"version": 1}, b"x"),
)


def mutated(sample: bytes, program: bytes) -> bytes:
    """Return a sample after the edits that a program asks for: four bytes each."""
    for at in range(0, len(program) - 3, 4):
        kind, high, low, argument = program[at : at + 4]
        place = (high << 8 | low) % (len(sample) + 1)
        token = TOKENS[argument % len(TOKENS)]
        if kind % 6 == 0:
            sample = sample[:place] + token + sample[place:]
        elif kind % 6 == 1:
            sample = sample[:place] + token + sample[place + max(len(token), 1) :]
        elif kind % 6 == 2:
            sample = sample[:place] + sample[place + argument :]
        elif kind % 6 == 3:
            sample = sample[:place] + bytes([argument]) + sample[place + 1 :]
        elif kind % 6 == 4:
            sample = sample[: place + argument] + sample[place:]
        else:
            sample = sample[:place]
        sample = sample[:20000]
    return sample


def changed(sample: Any, program: bytes) -> Any:
    """Return a structure of which a program replaces, removes or renames some parts."""
    sample = copy.deepcopy(sample)
    for at in range(0, len(program) - 3, 4):
        kind, high, low, argument = program[at : at + 4]
        places = list(_places(sample))
        if not places:
            return VALUES[argument % len(VALUES)]
        parent, key = places[(high << 8 | low) % len(places)]
        value = copy.deepcopy(VALUES[argument % len(VALUES)])
        if kind % 4 == 0:
            del parent[key]
        elif kind % 4 == 1 and isinstance(parent, dict):
            parent[TOKENS[argument % len(TOKENS)].decode("utf-8", "replace")] = parent.pop(key)
        elif kind % 4 == 2 and isinstance(parent, list):
            parent.insert(key, value)
        else:
            parent[key] = value
    return sample


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(children):
        yield node, key
        yield from _places(child)
