# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd's units as their files declare them, without our own drop-ins."""

from __future__ import annotations

import os
import re
from typing import Iterator

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import DROP_IN, UNITS_DIR
from .capabilities import CAPABILITIES

PACKAGED_UNIT_DIRS = ("/usr/local/lib/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
# As `systemd-analyze unit-paths` lists them: what comes first wins.
UNIT_DIRS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    UNITS_DIR,
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    *PACKAGED_UNIT_DIRS,
    "/run/systemd/generator.late",
)
# What PrivateUsers= may be besides a boolean.
_USER_NAMESPACES = ("self", "identity", "full", "managed")
_NAME = re.compile(r"^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.service\Z")


class Unit:
    """A unit's settings. ``settings`` has every assignment of a key in order."""

    def __init__(self, name: str, fragment: str, settings: dict[tuple[str, str], list[str]]) -> None:
        self.name = name
        self.fragment = fragment
        self._settings = settings

    def all(self, section: str, key: str) -> list[str]:
        """Return every assignment in order, empty ones included."""
        return self._settings.get((section, key), [])

    def last(self, section: str, key: str) -> str:
        """Return the assignment that takes effect, empty if there is none."""
        return (self.all(section, key) or [""])[-1]

    def is_on(self, key: str) -> bool:
        """Whether a switch of the service is on."""
        return self.last("Service", key).lower() in ("1", "yes", "y", "true", "t", "on", *_USER_NAMESPACES)

    @property
    def as_root(self) -> bool:
        """Whether the service's programs run as root."""
        return self.last("Service", "User") in ("", "0", "root") and not self.is_on("DynamicUser")

    @property
    def bounding(self) -> set[str] | None:
        """Return the capabilities that the service may have at most, None for all."""
        bounds: set[str] | None = None
        for value in self.all("Service", "CapabilityBoundingSet"):
            listed = set(value.lstrip("~").upper().split())
            if value.startswith("~"):
                # `~` alone resets the list to all.
                base = set(CAPABILITIES) if bounds is None else bounds
                bounds = base - listed if listed else None
            else:
                bounds = (bounds or set()) | listed if listed else set()
        return bounds

    @property
    def confined_to_devices(self) -> bool:
        """Whether the service may open listed devices only."""
        policy = self.last("Service", "DevicePolicy").lower()
        allowed = self.all("Service", "DeviceAllow")
        # systemd adds char-rtc to what a service with ProtectClock may open, and a list closes everything else.
        return policy in ("closed", "strict") or bool(allowed and allowed[-1]) or self.is_on("ProtectClock")


def full_name(name: str) -> str:
    """Return a service's name with its suffix."""
    full = name if name.endswith(".service") else name + ".service"
    if not _NAME.match(full):
        raise HostError(
            "service",
            "%r is not the name of a systemd service." % name,
            evidence=["expected a name such as ovs-vswitchd.service"],
            remedy="Correct the name.",
        )
    return full


def read_unit(root: Root, name: str) -> Unit | None:
    """Read a unit with its drop-ins; None if there is no such unit."""
    names = [name]
    template = re.sub(r"@[^@]*(\.\w+)$", r"@\1", name)
    if template != name:
        names.append(template)
    fragment = next(
        (path for alias in names for path in (_join(folder, alias) for folder in UNIT_DIRS) if root.exists(path)), None
    )
    if fragment is None:
        return None
    settings: dict[tuple[str, str], list[str]] = {}
    # If the file is a link, the name of its target is the unit's first name.
    target, kind = os.path.basename(root.realpath(fragment)), os.path.splitext(name)[1]
    known = [target, name] if target.endswith(kind) and target not in names else [name]
    for path in [fragment, *_drop_ins(root, known, kind)]:
        _parse(root.read_text(path) or "", settings)
    return Unit(name, fragment, settings)


def is_masked(root: Root, unit: Unit) -> bool:
    """Whether the unit was masked: linked to /dev/null."""
    return root.realpath(unit.fragment) == "/dev/null" or root.read_bytes(unit.fragment) == b""


def _drop_ins(root: Root, known: list[str], kind: str) -> list[str]:
    """Return the drop-ins of a unit; of those with the same file name, only the first, as systemd does."""
    found: dict[str, str] = {}
    for names in [*(list(_less_specific(alias)) for alias in known), [kind.lstrip(".")]]:
        for folder in UNIT_DIRS:
            for name in names:
                for file in root.listdir(folder, name + ".d"):
                    if file.endswith(".conf") and file != DROP_IN:
                        found.setdefault(file, "%s/%s.d/%s" % (folder, name, file))
    return [found[file] for file in sorted(found)]


def _less_specific(name: str) -> Iterator[str]:
    """Return a unit's name, that of its template, and both cut off after each of their dashes."""
    yield name
    stem, kind = os.path.splitext(name)
    prefix, _at, instance = stem.partition("@")
    if instance:
        yield from _less_specific(prefix + "@" + kind)
    shorter = re.match(r"(.+-).", prefix)
    if shorter:
        yield from _less_specific(shorter.group(1) + ("@" + instance if instance else "") + kind)


def _parse(text: str, settings: dict[tuple[str, str], list[str]]) -> None:
    section = ""
    for line in _logical_lines(text):
        if line[0] == "[":
            section = line.strip("[]")
        elif "=" in line:
            key, value = line.split("=", 1)
            settings.setdefault((section, key.strip()), []).append(value.strip())


def _logical_lines(text: str) -> Iterator[str]:
    """Join lines that a backslash continues. A comment is never continued and does not end a continuation."""
    begun = ""
    for line in text.splitlines():
        if line.lstrip()[:1] in ("#", ";"):
            continue
        joined = begun + line
        continues = (len(joined) - len(joined.rstrip("\\"))) % 2 == 1
        begun = joined[:-1] + " " if continues else ""
        if not continues and joined.strip():
            yield joined.strip()
    if begun.strip():
        yield begun.strip()


def _join(folder: str, name: str) -> str:
    return "%s/%s" % (folder, name)
