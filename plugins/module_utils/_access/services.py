# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd's units as their files declare them, and the drop-in that gives a service what its application needs.

The files are read, and not what `systemctl show` says: that would have our own drop-in in it, and the answer to what a
service lacks would change with the first run.
"""

from __future__ import annotations

import os
import re
from typing import Iterator

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import DROP_IN, HUGETLBFS_UNIT, UNIT_NAME, UNITS_DIR
from .._host.processes import pids
from . import profiles

_PACKAGED = ("/usr/local/lib/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
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
    *_PACKAGED,
    "/run/systemd/generator.late",
)
# Where Open vSwitch's units look up which user the daemons change to, and in what; what comes later wins.
_OVS_SETTINGS = ("/etc/openvswitch/default.conf", "/etc/sysconfig/openvswitch", "/etc/default/openvswitch-switch")
_OVS_USER = {
    "OVS_USER_ID": r"^[\"']?([\w-]+)",
    "OPTIONS": r"--ovs-user=[\"']?([\w-]+)",
    "OVS_CTL_OPTS": r"--ovs-user=[\"']?([\w-]+)",
}
# What PrivateUsers= may be besides a boolean.
_USER_NAMESPACES = ("self", "identity", "full", "managed")
_NAME = re.compile(r"^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.service\Z")


class Unit:
    """A unit's settings, ours left out. ``settings`` has every assignment of a key in order."""

    def __init__(self, name: str, fragment: str, settings: dict[tuple[str, str], list[str]]) -> None:
        self.name = name
        self.fragment = fragment
        self._settings = settings

    def all(self, section: str, key: str) -> list[str]:
        """Return every assignment in order, empty ones included."""
        return self._settings.get((section, key), [])

    def last(self, section: str, key: str) -> str:
        """Return the assignment that holds, empty if there is none."""
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
                # `~` alone gives all of them back.
                base = set(profiles.CAPABILITIES) if bounds is None else bounds
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
        (path for one in names for path in (_join(folder, one) for folder in UNIT_DIRS) if root.exists(path)), None
    )
    if fragment is None:
        return None
    settings: dict[tuple[str, str], list[str]] = {}
    # A unit is also known, and first of all, by the name of the file that its link leads to.
    target, kind = os.path.basename(root.realpath(fragment)), os.path.splitext(name)[1]
    known = [target, name] if target.endswith(kind) and target not in names else [name]
    for path in [fragment, *_drop_ins(root, known, kind)]:
        _parse(root.read_text(path) or "", settings)
    return Unit(name, fragment, settings)


def is_masked(root: Root, unit: Unit) -> bool:
    """Whether the unit was masked: linked to /dev/null."""
    return root.realpath(unit.fragment) == "/dev/null" or root.read_bytes(unit.fragment) == b""


def _drop_ins(root: Root, known: list[str], kind: str) -> list[str]:
    """Return the drop-ins of a unit; of those with one file name the first that systemd comes upon."""
    found: dict[str, str] = {}
    for names in [*(list(_less_specific(one)) for one in known), [kind.lstrip(".")]]:
        for folder in UNIT_DIRS:
            for name in names:
                for one in root.listdir(folder, name + ".d"):
                    if one.endswith(".conf") and one != DROP_IN:
                        found.setdefault(one, "%s/%s.d/%s" % (folder, name, one))
    return [found[one] for one in sorted(found)]


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
    """Join what a backslash continues. A comment continues nothing, and ends nothing that goes on."""
    begun = ""
    for line in text.splitlines():
        if line.lstrip()[:1] in ("#", ";"):
            continue
        line = begun + line
        continues = (len(line) - len(line.rstrip("\\"))) % 2 == 1
        begun = line[:-1] + " " if continues else ""
        if not continues and line.strip():
            yield line.strip()
    if begun.strip():
        yield begun.strip()


def _join(folder: str, name: str) -> str:
    return "%s/%s" % (folder, name)


# --- a service ---


def refusals(root: Root, name: str, unit: Unit | None, grants: list[profiles.Grant]) -> list[HostError]:
    """Say why a service cannot be given what it needs."""
    if unit is None:
        return [
            _refusal(
                "There is no systemd service %s on this host." % name,
                "no %s in %s" % (name, ", ".join((UNITS_DIR, *_PACKAGED))),
                "Install the application first, or correct the name.",
            )
        ]
    if is_masked(root, unit):
        return [
            _refusal(
                "The service %s is masked: it cannot be started." % name,
                "%s: leads to /dev/null" % unit.fragment,
                "systemctl unmask %s, or take it off the list." % name,
            )
        ]
    found = []
    if unit.is_on("PrivateDevices"):
        found.append(
            _refusal(
                "The service %s sees no devices." % name,
                "%s: PrivateDevices=%s" % (unit.fragment, unit.last("Service", "PrivateDevices")),
                "Set PrivateDevices=no in a drop-in of your own (systemctl edit %s)." % name,
            )
        )
    if grants and unit.is_on("PrivateUsers"):
        found.append(
            _refusal(
                "The capabilities of the service %s would count for nothing outside of its user namespace." % name,
                "%s: PrivateUsers=%s" % (unit.fragment, unit.last("Service", "PrivateUsers")),
                "Set PrivateUsers=no in a drop-in of your own (systemctl edit %s)." % name,
            )
        )
    return found


def ovs_refusals(root: Root) -> list[HostError]:
    """Say why Open vSwitch cannot use physical addresses: it gives CAP_SYS_ADMIN up when it changes its user."""
    settings: dict[str, tuple[str, str]] = {}
    for path in _OVS_SETTINGS:
        text = re.sub(r"\\\n", " ", root.read_text(path) or "")
        for name, value in re.findall(r"^\s*(\w+)=(.*)$", text, re.MULTILINE):
            settings[name] = (path, value)
    user, where, line = "root", "", ""
    for name, pattern in _OVS_USER.items():
        path, value = settings.get(name, ("", ""))
        users = re.findall(pattern, value)
        if users:
            user, where, line = users[-1], path, "%s=%s" % (name, value)
    if user in ("root", "0"):
        return []
    return [
        _refusal(
            "Open vSwitch runs as %s here and gives CAP_SYS_ADMIN up, without which it cannot learn physical"
            " addresses." % user,
            "%s: %s" % (where, line),
            'Have it run as root (OVS_USER_ID="root:root" or --ovs-user=root:root in %s): on this host, whoever drives'
            " a device could write the kernel's memory anyway. Only a host with an IOMMU gains by another user."
            % where,
        )
    ]


def _refusal(message: str, evidence: str, remedy: str) -> HostError:
    return HostError("service", message, [evidence], remedy)


def drop_in(unit: Unit, group: str, memlock: str, grants: list[profiles.Grant], nodes: list[str], header: str) -> str:
    """Return the drop-in that gives a service what it needs, with the reasons; ``nodes`` are those besides VFIO's.

    The capability bounding set is only ever widened: to narrow it could take from a service what it has for other
    purposes, and would confine nobody who may program a device that reaches all memory.
    """
    lines = ["[Unit]", "# The devices are bound first.", "After=" + UNIT_NAME, "", "[Service]"]
    if not unit.as_root:
        lines += ["# Opens /dev/vfio/N and the hugetlbfs.", "SupplementaryGroups=" + group]
    lines += [
        "# VFIO pins the memory that a device may reach, and counts it.",
        "LimitMEMLOCK=" + ("infinity" if memlock == "unlimited" else memlock),
    ]
    if grants:
        names = profiles.parse_capabilities([grant.capability for grant in grants])
        bounding = unit.bounding
        lines += ["# %s: %s." % grant for grant in grants]
        if not unit.as_root:
            lines.append("AmbientCapabilities=" + " ".join(names))
        if bounding is not None and not bounding.issuperset(names):
            lines.append("CapabilityBoundingSet=" + " ".join(names))
    if unit.confined_to_devices:
        lines += ["DeviceAllow=%s rw" % node for node in ("/dev/vfio/vfio", "char-vfio", *nodes)]
    return header + "\n".join(lines) + "\n"


def unserved(root: Root, unit: Unit, gid: int | None, memlock: str, grants: list[profiles.Grant]) -> list[str]:
    """Say that none of a running service's processes has what it needs: they were started before.

    Nothing is said of a service that does not run.
    """
    wanted = profiles.mask([grant.capability for grant in grants])
    seen = []
    # The control group has the name of the file that an alias leads to.
    names = {unit.name, os.path.basename(root.realpath(unit.fragment))}
    for pid in pids(root):
        control = root.read_text("/proc", pid, "cgroup") or ""
        if not any(names.intersection(line.split("/")) for line in control.splitlines()):
            continue
        status = dict(
            line.split(":", 1) for line in (root.read_text("/proc", pid, "status") or "").splitlines() if ":" in line
        )
        has = int(status.get("CapPrm", "0").strip() or "0", 16)
        lacks = profiles.names(wanted & ~has)
        limit = _locked_limit(root, pid)
        if not has >> profiles.CAPABILITIES.index("CAP_IPC_LOCK") & 1 and _less(limit, memlock):
            lacks.append("locked memory (%s)" % limit)
        as_root = status.get("Uid", "0").split()[0] == "0"
        if gid is not None and not as_root and str(gid) not in status.get("Groups", "").split():
            lacks.append("the group %d" % gid)
        if not lacks:
            return []
        seen.append("process %s (%s) lacks %s" % (pid, status.get("Name", "?").strip(), ", ".join(lacks)))
    return seen


def _locked_limit(root: Root, pid: str) -> str:
    match = re.search(r"^Max locked memory\s+(\S+)", root.read_text("/proc", pid, "limits") or "", re.MULTILINE)
    return match.group(1) if match else "unlimited"


def _less(limit: str, wanted: str) -> bool:
    if limit == "unlimited":
        return False
    return wanted == "unlimited" or int(limit) < int(wanted)


# --- the mount of /dev/hugepages ---

HUGETLBFS = "/dev/hugepages"
HUGETLBFS_MODE = 0o1770


def hugetlbfs_drop_in(root: Root, gid: int, header: str) -> str:
    """Return the drop-in with which systemd mounts /dev/hugepages for a group at boot."""
    unit = read_unit(root, HUGETLBFS_UNIT)
    had = unit.last("Mount", "Options") if unit else ""
    options = [one for one in had.split(",") if one and one.split("=")[0] not in ("gid", "mode")]
    # The kernel takes a number only.
    number = "(chosen when the group is made)" if gid < 0 else str(gid)
    options += ["mode=%04o" % HUGETLBFS_MODE, "gid=" + number]
    return header + "[Mount]\nOptions=%s\n" % ",".join(options)
