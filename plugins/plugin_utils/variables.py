# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of variables that look like this collection's and are not."""

from __future__ import annotations

import difflib
import re
from typing import Any, Mapping

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.parts import whole_of
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import VARIABLES

_PREFIX = "noiommu_"
# The prefix itself can be misspelt, as in noiomu_devices, no_iommu_devices and NOIOMMU_DEVICES.
_LIKE_THE_PREFIX = re.compile(r"no_?io?m+u_", re.IGNORECASE)
_ALIKE = 0.85  # how alike names have to be (1: the same) where nothing else says that ours was meant
_VERY_ALIKE = 0.95  # where the name could be right


def unknown_names(variables: Mapping[str, Any]) -> list[HostError]:
    """Refuse each variable that would be ignored although its name says that it is meant for this collection."""
    refusals = []
    for name in sorted(name for name in variables if _LIKE_THE_PREFIX.match(name) and name not in VARIABLES):
        ours, whole = name.startswith(_PREFIX), whole_of(name)
        # An ending may be anything, but noiommu_hugepages_mounts is meant for another variable.
        known = [variable for variable in VARIABLES if variable != whole]
        nearest = difflib.get_close_matches(name.lower(), known, 1, _VERY_ALIKE if whole else 0.6 if ours else _ALIKE)
        if nearest or (ours and not whole):
            refusals.append(_refusal(name, *nearest))
    return refusals


def _refusal(name: str, nearest: str = "") -> HostError:
    return HostError(
        "unknown_variable",
        "%s is not a variable of this collection." % name,
        evidence=["the nearest one is %s" % nearest if nearest else "none is named like it"],
        remedy="%s. docs/variables.md lists all variables; names that begin with %s are kept for them."
        % ("Write %s" % nearest if nearest else "Correct the name or remove it", _PREFIX),
    )
