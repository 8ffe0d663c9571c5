# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator declares about devices."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base.errors import Refused
from .._base.fs import Root


class Request(NamedTuple):
    """What the operator declared. Empty lists release everything; None declares nothing, and must not release."""

    devices: list[dict[str, Any]] | None
    driver: str = "vfio-pci"
    backend: str = "auto"
    accept_unsafe: bool = False
    persistent: bool = True
    dpdk_pa_hint: bool = True
    sriov: list[dict[str, Any]] | None = []
    insecure_until: str | None = None


class Declared(NamedTuple):
    """The two lists of a request, neither of which is missing."""

    devices: list[dict[str, Any]]
    sriov: list[dict[str, Any]]


def explicit(root: Root, request: Request) -> Declared:
    """Return what is declared; a missing list must not release what is recorded, so it is refused."""
    missing = [name for name in ("devices", "sriov") if getattr(request, name) is None]
    if missing:
        from .._policy.undeclared import undeclared

        refusals = undeclared(root, missing)
        if refusals:
            raise Refused(refusals)
    return Declared(request.devices or [], request.sriov or [])
