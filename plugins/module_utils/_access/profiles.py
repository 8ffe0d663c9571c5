# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a data plane application needs from the host besides its device nodes, for each backend, and why."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._policy import kinds
from .declared import Request, asked_capabilities

# How an application gets its capabilities, which makes a difference: see needs().
SERVICE, BINARY, CONTAINER = "service", "binary", "container"

NONE_NEEDED = (
    "a hardware IOMMU translates: the application uses virtual addresses (IOVA=VA), and VFIO asks for no capability"
)
_RAWIO = {
    kinds.DKMS: "the module noiommu gives an unconfined device only to a process that has it (else EPERM)",
    kinds.BUILTIN: "VFIO opens a no-IOMMU group only for a process that has it (else EPERM)",
}
_PAGEMAP = "IOVA=PA: /proc/self/pagemap shows no physical address without it"
_NOT_DUMPABLE = "a process with file capabilities is not dumpable, so that its /proc/self/pagemap belongs to root"
_NO_PAM = "the limit on locked memory applies only to sessions that PAM opens; this applies to all"
_OVS = {
    "CAP_NET_ADMIN": "Open vSwitch makes interfaces and configures the kernel's datapath",
    "CAP_NET_RAW": "Open vSwitch sends and receives on ports that the kernel drives",
}


class Grant(NamedTuple):
    """One capability and the reason for it."""

    capability: str
    reason: str


def needs(profile: str, backend: str, how: str, unlimited: bool, asked: list[str]) -> list[Grant]:
    """Return the capabilities that an application without root needs, and no more.

    ``unlimited``: whether it may lock any amount of memory. Where a limit is declared, CAP_IPC_LOCK, which lifts
    every limit, is not given. ``asked``: what the operator lists for the profile custom.
    """
    if profile == "custom":
        return [Grant(name, "declared for this application") for name in asked]
    grants = []
    if backend != kinds.IOMMU:
        grants = [Grant("CAP_SYS_RAWIO", _RAWIO[backend]), Grant("CAP_SYS_ADMIN", _PAGEMAP)]
        if how == BINARY:
            grants.append(Grant("CAP_DAC_READ_SEARCH", _NOT_DUMPABLE))
            if unlimited:
                grants.append(Grant("CAP_IPC_LOCK", _NO_PAM))
    if profile == "ovs":
        grants += [Grant(name, reason) for name, reason in _OVS.items()]
    return grants


class Application(NamedTuple):
    """A service or a program, by its name, and the capabilities that its application needs."""

    name: str
    profile: str
    grants: list[Grant]

    def without(self, held: set[str]) -> Application:
        """Return the application without the capabilities that it already has."""
        return self._replace(grants=[grant for grant in self.grants if grant.capability not in held])

    def with_grants_of(self, other: Application) -> Application:
        """Return the application with the capabilities of both."""
        held = {grant.capability for grant in self.grants}
        return self._replace(grants=[*self.grants, *other.without(held).grants])


def application(name: str, declared: dict[str, Any], how: str, backend: str, request: Request) -> Application:
    """Return what a declared service or program needs on this backend."""
    profile = declared.get("profile") or request.profile
    asked = asked_capabilities(name, profile, declared.get("capabilities") or request.capabilities)
    return Application(name, profile, needs(profile, backend, how, request.memlock == "unlimited", asked))
