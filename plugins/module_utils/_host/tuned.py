# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What TuneD's active profiles set, with file and line."""

from __future__ import annotations

import re
from typing import Iterator, NamedTuple

from .._base.fs import Root
from .._base.paths import WANTS_DIR

NAME = "tuned.service"
_ACTIVE = ("/etc/tuned/active_profile", "/etc/tuned/post_loaded_profile")
# Where profiles are looked for; the first one that has it counts.
_DIRECTORIES = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
_DEPTH = 16  # of profiles that include each other


class TunedSetting(NamedTuple):
    """A line of a profile."""

    path: str
    line: int
    section: str
    key: str
    value: str


def is_enabled(root: Root) -> bool:
    """Whether it runs at boot."""
    return root.exists(WANTS_DIR, NAME)


def settings(root: Root) -> list[TunedSetting]:
    """Return all settings of the active profiles; for each key only the last, which takes effect."""
    found: dict[tuple[str, str], TunedSetting] = {}
    for active in _ACTIVE:
        for name in (root.read_text(active) or "").split():
            for setting in _of_profile(root, name, _DEPTH):
                found[setting.section, setting.key] = setting
    return list(found.values())


def _of_profile(root: Root, name: str, depth: int) -> Iterator[TunedSetting]:
    """Yield a profile's settings, those that it includes first."""
    base = name.lstrip("-").rpartition("/")[2]
    places = ["%s/%s/tuned.conf" % (directory, base) for directory in _DIRECTORIES]
    path = next(filter(root.exists, places), None)
    if path is None or not base or not depth:
        return
    own = list(_of_file(root, path))
    for setting in own:
        if (setting.section, setting.key) == ("main", "include"):
            for included in re.split(r"[\s,;]+", setting.value):
                yield from _of_profile(root, included, depth - 1)
    yield from own


def _of_file(root: Root, path: str) -> Iterator[TunedSetting]:
    section = ""
    text = (root.read_bytes(path) or b"").decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        if header:
            section = header.group(1).strip()
            continue
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith(("#", ";")):
            yield TunedSetting(path, number, section, key.strip(), value.strip())
