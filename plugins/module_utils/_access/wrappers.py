# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services that do not run the application themselves, so that a drop-in would grant nothing."""

from __future__ import annotations

import os
from typing import Iterator

from .._base.errors import HostError
from .._base.fs import Root
from .._host.units import UNIT_DIRS, Unit, read_unit

# The settings by which a unit pulls in others.
_PULLS_IN = ("Requires", "BindsTo", "Requisite", "Wants", "Upholds")
_STARTERS = ("systemctl", "service", "invoke-rc.d")
# Their services or daemons start the application in a control group and with capabilities of its own.
_ELSEWHERE = ("docker", "podman", "nerdctl", "ctr", "crictl", "lxc-start", "machinectl", "virsh")


def refusals(root: Root, name: str, unit: Unit) -> list[HostError]:
    """Refuse a service whose commands do nothing, start other services, or start a container or a virtual machine."""
    programs = [os.path.basename(words[0]) for words in commands(unit)]
    if not programs:
        return []
    evidence = "%s: ExecStart=%s" % (unit.fragment, "; ".join(" ".join(words) for words in commands(unit)))
    if all(program in ("true", ":") for program in programs):
        return [_refusal("The service %s runs nothing itself." % name, evidence, _instead(root, name, unit))]
    if all(program in _STARTERS for program in programs):
        return [_refusal("The service %s only starts others." % name, evidence, _instead(root, name, unit))]
    containers = [program for program in programs if program in _ELSEWHERE]
    if containers:
        return [
            _refusal(
                "The service %s runs its application by %s, which does not get what the service is granted."
                % (name, containers[0]),
                evidence,
                "Give it what noiommu_info returns under container, and remove the service from the list.",
            )
        ]
    return []


def commands(unit: Unit) -> list[list[str]]:
    """Return the words of each command; an empty assignment drops those before it."""
    commands: list[list[str]] = []
    for line in unit.all("Service", "ExecStart"):
        words = line.lstrip("@-:+!").split()
        commands = [*commands, words] if words else []
    return commands


def _instead(root: Root, name: str, unit: Unit) -> str:
    """Say which services to list instead."""
    found = [other for other in _pulled_in(root, name, unit) if _runs_something(root, other)]
    # Only one of Open vSwitch's daemons has the ports.
    found = [other for other in found if "vswitchd" in other] or found
    if found:
        return "List the service that runs the application: %s." % ", ".join(found)
    return "List the service that runs the application (systemctl list-dependencies %s)." % name


def _pulled_in(root: Root, name: str, unit: Unit) -> Iterator[str]:
    """Yield the services that a unit starts, instances of its template among them."""
    stem = name[: -len(".service")]
    named = [other for key in _PULLS_IN for value in unit.all("Unit", key) for other in value.split()]
    named += [word if "." in word else word + ".service" for words in commands(unit) for word in words[1:]]
    for folder in UNIT_DIRS:
        for kind in ("wants", "requires"):
            named += root.listdir(folder, "%s.%s" % (name, kind))
        named += [other for other in root.listdir(folder) if other.startswith(stem + "@")]
    yield from dict.fromkeys(other for other in named if other.endswith(".service") and other != name)


def _runs_something(root: Root, name: str) -> bool:
    unit = read_unit(root, name)
    return unit is not None and any(os.path.basename(words[0]) not in ("true", ":") for words in commands(unit))


def _refusal(message: str, evidence: str, remedy: str) -> HostError:
    return HostError("wrapper", message, [evidence], remedy)
