# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A kernel command line as words, and what it means that it holds a parameter. Pure.

A declared parameter is a phrase: one word, or several that belong together in this order, such as
``hugepagesz=1G hugepages=4``.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root

RUNNING = "/proc/cmdline"

_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
# What shells, GRUB's script language and grubby's regular expressions all leave alone.
_PLAIN = re.compile(r"^[A-Za-z0-9_.,:=/@+%~()\[\]-]+$")


class Parameters(NamedTuple):
    """What one owner wants on the command line, and what it wants off it."""

    parameters: list[str]
    without: list[str] = []

    @property
    def words(self) -> list[str]:
        """Every wanted word."""
        return [word for phrase in self.parameters for word in phrase.split(" ")]


def split(line: str) -> list[str]:
    """Return a line's words; what is between double quotes is one."""
    return _WORD.findall(line)


def running(root: Root) -> list[str]:
    """Return the running kernel's command line."""
    return split(root.read_text(RUNNING) or "")


def name_of(word: str) -> str:
    """Return a word's part before the equals sign."""
    return word.partition("=")[0]


def find(words: list[str], phrase: str) -> int | None:
    """Return where a phrase occurs last, or None."""
    wanted = phrase.split(" ")
    starts = range(len(words) - len(wanted), -1, -1)
    return next((start for start in starts if words[start : start + len(wanted)] == wanted), None)


def effective(words: list[str], phrase: str, declared: Parameters) -> bool:
    """Whether a phrase is there and no later word overrides it: of several values the kernel mostly takes the last."""
    if find(words, phrase) is None:
        return False
    if " " in phrase or "=" not in phrase:
        return True
    return [word for word in words if name_of(word) == name_of(phrase)][-1] in declared.words


def holds(words: list[str], declared: Parameters) -> bool:
    """Whether a line has everything that is wanted and nothing that is not."""
    there = all(effective(words, phrase, declared) for phrase in declared.parameters)
    return there and not set(declared.without) & set(words)


def add(words: list[str], declared: Parameters) -> list[str]:
    """Return a line with the wanted appended and the unwanted left out."""
    return [word for word in words if word not in declared.without] + declared.words


def remove(words: list[str], declared: Parameters, before: list[str]) -> list[str]:
    """Return a line without what :func:`add` did to it; ``before`` is the line as it was originally."""
    words = list(words)
    for phrase in reversed(declared.parameters):
        start = find(words, phrase)
        if start is not None:
            del words[start : start + len(phrase.split(" "))]
    words += [word for word in before if word in declared.without and word not in words]
    return before if sorted(words) == sorted(before) else words


def parse(parameters: Any, without: list[str]) -> Parameters:
    """Check what an operator declared: a list of strings, or a dictionary of names and values."""
    if isinstance(parameters, dict):
        phrases = [_from_pair(name, value) for name, value in parameters.items()]
    elif isinstance(parameters, list):
        phrases = [" ".join(str(parameter).split()) for parameter in parameters]
    else:
        raise _bad(parameters, "a list of strings or a dictionary is expected", "Write [intel_iommu=on].")
    for word in [word for phrase in phrases for word in phrase.split(" ")] + without:
        if not _PLAIN.match(word):
            raise _bad(
                word,
                "a character of it means something to a boot loader or a shell: only letters, digits and"
                " _.,:=/@+%~()[]- arrive unchanged everywhere",
                "Leave it out here, and put it on the command line by hand.",
            )
    both = sorted(set(without) & {word for phrase in phrases for word in phrase.split(" ")})
    if both:
        raise _bad(both[0], "it is wanted and unwanted at once", "Take it out of one of the two lists.")
    return Parameters(list(dict.fromkeys(phrases)), list(dict.fromkeys(without)))


def _from_pair(name: Any, value: Any) -> str:
    if isinstance(value, bool):
        # YAML reads an unquoted on as true, and a bare word in its place would mean something else.
        remedy = "Quote the value: %s: 'on'. For a parameter without a value, leave it empty." % name
        raise _bad("%s: %s" % (name, value), "YAML made a truth value of it", remedy)
    return str(name) if value is None or value == "" else "%s=%s" % (name, value)


def _bad(shown: Any, why: str, remedy: str) -> HostError:
    return HostError("parameter", "%r cannot be a kernel parameter." % (shown,), evidence=[why], remedy=remedy)
