# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was deployed to a host, from its record of the bindings."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base.fs import Root
from .._base.paths import BINDINGS
from .._base.records import load_json, sift
from .._base.schema import Problem
from .._devices.schemas import BINDING, BINDING_SRIOV
from .._devices.schemas import BINDINGS as BINDINGS_SCHEMA


class Deployed(NamedTuple):
    """The record, and those of its entries that can be used."""

    bindings: dict[str, Any]  # empty where nothing was deployed
    devices: list[dict[str, Any]]
    functions: list[dict[str, Any]]
    damage: list[Problem]  # what is wrong with the other entries


NOTHING = Deployed({}, [], [], [])


def read_deployed(root: Root) -> Deployed:
    """Read the record; one damaged entry costs only itself."""
    bindings = load_json(root, BINDINGS, BINDINGS_SCHEMA) or {}
    devices, wrong = sift(bindings.get("devices", []), BINDING, "devices")
    functions, more_wrong = sift(bindings.get("sriov", []), BINDING_SRIOV, "sriov")
    return Deployed(bindings, devices, functions, wrong + more_wrong)
