# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a service's application needs but the service lacks, and the drop-in that grants it.

A unit's files are read, not what `systemctl show` says: that would include our own drop-in, and the answer would change
with the first run.
"""

from __future__ import annotations

import os
import re
from typing import Any, Iterator

from .._base.errors import HostError
from .._base.files import RenderedFile
from .._base.fs import Root
from .._base.paths import UNIT_NAME, UNITS_DIR, drop_in_path
from .._host import capabilities
from .._host.accounts import user_ids
from .._host.processes import pids
from .._host.units import PACKAGED_UNIT_DIRS, Unit, full_name, is_masked, read_unit
from .._policy.kinds import DKMS, IOMMU
from . import eligibility, profiles, wrappers
from .declared import Request
from .files import HEADER, PIN_NODE, service_drop_ins
from .profiles import Application

# Files and variables that tell Open vSwitch's units which user the daemons change to; the last one wins.
_OVS_SETTINGS = ("/etc/openvswitch/default.conf", "/etc/sysconfig/openvswitch", "/etc/default/openvswitch-switch")
_OVS_USER = {
    "OVS_USER_ID": r"^[\"']?([\w-]+)",
    "OPTIONS": r"--ovs-user=[\"']?([\w-]+)",
    "OVS_CTL_OPTS": r"--ovs-user=[\"']?([\w-]+)",
}


class ServicesPlan:
    """The services that get a drop-in with what their applications need."""

    def __init__(self, root: Root, request: Request, backend: str | None) -> None:
        self._root = root
        self._request = request
        self.backend = backend
        self.refusals: list[HostError] = []
        self.applications: list[Application] = []
        self._units: dict[str, Unit] = {}
        for declared in request.services if backend is not None else []:
            try:
                self._read(declared, backend or "")
            except HostError as exc:
                self.refusals.append(exc)

    def _read(self, declared: dict[str, Any], backend: str) -> None:
        name = full_name(declared["name"])
        application = profiles.application(name, declared, profiles.SERVICE, backend, self._request)
        unit = read_unit(self._root, name)
        self.refusals += refusals(self._root, name, unit, application.grants)
        if application.profile == "ovs" and backend != IOMMU:
            self.refusals += ovs_refusals(self._root)
        if unit is not None:
            self._units[name] = unit
            if application.grants and not unit.as_root:
                self.refusals += _replaceable_programs(self._root, unit)
            if unit.as_root:
                # Root has every capability that the unit's bounding set leaves.
                bounding = unit.bounding
                application = application.without(set(capabilities.CAPABILITIES) if bounding is None else bounding)
            self.applications.append(application)

    def names(self) -> list[str]:
        """Return the services with a drop-in."""
        return sorted(application.name for application in self.applications)

    def runs_as_root(self, name: str) -> bool:
        """Whether a service's programs run as root."""
        return self._units[name].as_root

    def rendered(self) -> list[RenderedFile]:
        """Return the drop-in of each service; one that is no longer declared loses its own."""
        found = [
            RenderedFile(drop_in_path(application.name), self._drop_in(application))
            for application in self.applications
        ]
        declared = {file.path for file in found}
        return found + [RenderedFile(path, None) for path in service_drop_ins(self._root) if path not in declared]

    def _drop_in(self, application: Application) -> str:
        unit = self._units[application.name]
        pin_node = [PIN_NODE] if self.backend == DKMS else []
        return drop_in(unit, self._request.group or "", self._request.memlock, application.grants, pin_node)

    def to_restart(self, gid: int | None) -> list[dict[str, Any]]:
        """Return the running services that were started before they got what they need."""
        found = []
        for application in self.applications:
            unit = self._units[application.name]
            lacking = unserved(self._root, unit, gid, self._request.memlock, application.grants)
            if lacking:
                found.append({"service": application.name, "evidence": lacking})
        return found


def refusals(root: Root, name: str, unit: Unit | None, grants: list[profiles.Grant]) -> list[HostError]:
    """Return every reason why a service cannot be given what it needs."""
    if unit is None:
        return [
            _refusal(
                "There is no systemd service %s on this host." % name,
                "no %s in %s" % (name, ", ".join((UNITS_DIR, *PACKAGED_UNIT_DIRS))),
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
    found = wrappers.refusals(root, name, unit)
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


def _replaceable_programs(root: Root, unit: Unit) -> Iterator[HostError]:
    """Refuse programs that somebody else can replace, who would then get the service's capabilities.

    Programs of the service's own user are fine: they run as that user anyway.
    """
    user = unit.last("Service", "User")
    owner = int(user) if user.isdigit() else user_ids(root).get(user, 0)
    for path in {root.realpath(words[0]) for words in wrappers.commands(unit) if words[0].startswith("/")}:
        if root.exists(path):
            about = os.stat(root.path(path))
            if about.st_uid not in (0, owner) or about.st_mode & 0o022:
                yield _refusal(
                    "Somebody other than root can change %s, which the service %s runs." % (path, unit.name),
                    "%s: uid %d, mode %04o" % (path, about.st_uid, about.st_mode & 0o7777),
                    "Install it as root's (chown root %s; chmod go-w %s)." % (path, path),
                )
            yield from eligibility.replaceable(root, path, {0, owner}, "service")


def ovs_refusals(root: Root) -> list[HostError]:
    """Refuse an Open vSwitch that changes its user and drops CAP_SYS_ADMIN, which physical addresses need."""
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
            'Have it run as root (OVS_USER_ID="root:root" or --ovs-user=root:root in %s): on this host, a process that'
            " drives a device can write the kernel's memory anyway. Another user helps only on a host with an IOMMU."
            % where,
        )
    ]


def _refusal(message: str, evidence: str, remedy: str) -> HostError:
    return HostError("service", message, [evidence], remedy)


def drop_in(unit: Unit, group: str, memlock: str, grants: list[profiles.Grant], nodes: list[str]) -> str:
    """Return the drop-in that gives a service what it needs, with the reasons; ``nodes`` are those besides VFIO's.

    The capability bounding set is only ever widened: narrowing it could break the service, and would not confine a
    process that may program a device that reaches all memory.
    """
    lines = ["[Unit]", "# The devices are bound first.", "After=" + UNIT_NAME, "", "[Service]"]
    if not unit.as_root:
        lines += ["# Opens /dev/vfio/N and the hugetlbfs.", "SupplementaryGroups=" + group]
    lines += [
        "# VFIO pins the memory that a device may reach, and counts it.",
        "LimitMEMLOCK=" + ("infinity" if memlock == "unlimited" else memlock),
    ]
    if grants:
        names = capabilities.parse([grant.capability for grant in grants])
        bounding = unit.bounding
        lines += ["# %s: %s." % grant for grant in grants]
        if not unit.as_root:
            lines.append("AmbientCapabilities=" + " ".join(names))
        if bounding is not None and not bounding.issuperset(names):
            lines.append("CapabilityBoundingSet=" + " ".join(names))
    if unit.confined_to_devices:
        lines += ["DeviceAllow=%s rw" % node for node in ("/dev/vfio/vfio", "char-vfio", *nodes)]
    return HEADER + "\n".join(lines) + "\n"


def unserved(root: Root, unit: Unit, gid: int | None, memlock: str, grants: list[profiles.Grant]) -> list[str]:
    """Return what each process of a running service lacks; nothing if one of them lacks nothing."""
    wanted = capabilities.mask([grant.capability for grant in grants])
    lacking = []
    # The control group has the name of the file that an alias leads to.
    names = {unit.name, os.path.basename(root.realpath(unit.fragment))}
    for pid in pids(root):
        control = root.read_text("/proc", pid, "cgroup") or ""
        if not any(names.intersection(line.split("/")) for line in control.splitlines()):
            continue
        status = dict(
            line.split(":", 1) for line in (root.read_text("/proc", pid, "status") or "").splitlines() if ":" in line
        )
        has = _mask(status.get("CapPrm", ""))
        lacks = capabilities.names(wanted & ~has)
        limit = _locked_limit(root, pid)
        if not has >> capabilities.CAPABILITIES.index("CAP_IPC_LOCK") & 1 and _less(limit, memlock):
            lacks.append("locked memory (%s)" % limit)
        as_root = (status.get("Uid", "").split() or ["0"])[0] == "0"
        if gid is not None and not as_root and str(gid) not in status.get("Groups", "").split():
            lacks.append("the group %d" % gid)
        if not lacks:
            return []
        lacking.append("process %s (%s) lacks %s" % (pid, status.get("Name", "?").strip(), ", ".join(lacks)))
    return lacking


def _mask(text: str) -> int:
    return int(text, 16) if re.match(r"\s*[0-9a-fA-F]{1,32}\s*\Z", text) else 0


def _locked_limit(root: Root, pid: str) -> str:
    text = root.read_text("/proc", pid, "limits") or ""
    match = re.search(r"^Max locked memory\s+(\d{1,20}|unlimited)\s", text, re.MULTILINE)
    return match.group(1) if match else "unlimited"


def _less(limit: str, wanted: str) -> bool:
    if limit == "unlimited":
        return False
    return wanted == "unlimited" or int(limit) < int(wanted)
