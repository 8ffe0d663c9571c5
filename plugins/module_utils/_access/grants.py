# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Explain to an operator who gets what, and why."""

from __future__ import annotations

from typing import Iterator, NamedTuple

from .._base.paths import GRANTED_MODE
from .._host.iommu import VFIO_DIR
from .._policy.kinds import IOMMU
from . import hugetlbfs
from .declared import Request
from .hugetlbfs import HugetlbfsPlan
from .profiles import NONE_NEEDED, Application
from .programs import ProgramsPlan
from .services import ServicesPlan


class Granted(NamedTuple):
    """One grant to one recipient."""

    to: str
    what: str
    why: str


def grants(
    request: Request, users: list[str], mount: HugetlbfsPlan, services: ServicesPlan, programs: ProgramsPlan
) -> Iterator[Granted]:
    """Yield what the group, its members, services and programs get."""
    if request.group is None:
        return
    group, memlock = "group " + request.group, "memlock " + request.memlock
    yield Granted(
        group, "%s/N, %04o" % (VFIO_DIR, GRANTED_MODE), "a process that opens a VFIO group drives its devices"
    )
    yield Granted(group, memlock, "VFIO pins the memory that a device may reach, and counts it as locked")
    if mount.is_granted:
        yield Granted(group, "%s, %04o" % (hugetlbfs.HUGETLBFS, hugetlbfs.MODE), "DPDK keeps its memory in files")
    for user in users:
        yield Granted("user " + user, group, "declared under users")
    for service in services.applications:
        name, is_root = "service " + service.name, services.runs_as_root(service.name)
        yield Granted(name, memlock, "VFIO counts pinned memory; PAM limits no service")
        if not is_root:
            yield Granted(name, group, "opens the device nodes and the hugetlbfs without being root")
        yield from _capabilities(
            name, service, "it runs as root" if is_root and services.backend != IOMMU else NONE_NEEDED
        )
    for program in programs.applications:
        yield from _capabilities("binary " + program.name, program, NONE_NEEDED)


def _capabilities(name: str, application: Application, why_none: str) -> Iterator[Granted]:
    for grant in application.grants:
        yield Granted(name, grant.capability, grant.reason)
    if not application.grants:
        yield Granted(name, "no capability", why_none)
