# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes of this collection's modules, described once."""

from __future__ import annotations


class ModuleDocFragment:
    """Attribute descriptions; each module states its own support."""

    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/baremetal.noiommu.noiommu) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - baremetal.noiommu.noiommu
  check_mode:
    description: Can run in C(check_mode) and return a changed status prediction without modifying the target.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled by the module has not changed in a relevant way.
  platform:
    description: Target OS/families that can be operated against.
"""

    # A read-only module.
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module does not modify state.
  diff_mode:
    support: N/A
    details:
      - This module does not modify state.
  idempotent:
    support: full
    details:
      - This module does not modify state.
  platform:
    platforms: linux
    support: full
"""

    # A module that keeps a declared state.
    STATE = r"""
options: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: linux
    support: full
"""
