# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the variables that add up declare together."""

from __future__ import annotations

DOCUMENTATION = r"""
name: declared
short_description: Returns what a host's variables of one kind declare together
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Adds up a variable of this collection and those that have its name with an ending, as C(noiommu_devices) and
    C(noiommu_devices_storage). The plain one comes first, then the others by name.
  - The roles use it in their defaults. M(baremetal.noiommu.declaration) refuses what contradicts itself.
options:
  _terms:
    description: Names of variables, such as V(noiommu_devices).
    type: list
    elements: str
    required: true
seealso:
  - module: baremetal.noiommu.declaration
"""

EXAMPLES = r"""
- name: Show the devices that all groups of the host declare
  ansible.builtin.debug:
    msg: "{{ lookup('baremetal.noiommu.declared', 'noiommu_devices') }}"
"""

RETURN = r"""
_raw:
  description: For each name what is declared, V(null) if nothing is.
  type: list
  elements: raw
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import parts


class LookupModule(LookupBase):
    """Reads the host's variables as a task sees them."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return one value for each name."""
        self.set_options(var_options=variables, direct=kwargs)
        known = variables or {}
        return [
            parts.add_up(whole, {name: self._templar.template(known[name]) for name in parts.names_of(whole, known)})
            for whole in terms
        ]
