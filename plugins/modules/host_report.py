#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_report
short_description: Says in one record and one line what a run found out about a host
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Reads the variables that the roles of this collection registered in the same play, usually in check mode, and does
    nothing on the host.
  - A host that could not be reached, was refused, or failed gets a record as well.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
  - baremetal.noiommu._attributes.info
options:
  fail:
    description:
      - Whether to fail, with the one line as the message, where the host is not in the declared state.
      - Nothing but that line is returned then.
    type: bool
    default: false
  maintenance:
    description: Why the host is in maintenance, if it is. That is its state then, whatever was found.
    type: str
    default: ""
seealso:
  - module: baremetal.noiommu.fleet_report
"""

EXAMPLES = r"""
- name: Compare, changing nothing
  ansible.builtin.include_role:
    name: baremetal.noiommu.passthrough

- name: Say what has drifted
  baremetal.noiommu.host_report:
    fail: true
"""

RETURN = r"""
msg:
  description: One line, the host's name, its state and the reason.
  returned: always
  type: str
  sample: "alpha: drifted: hugepages: 2M: 100 instead of 128"
record:
  description: What was found, as one host in the report's JSON (C(docs/report.schema.json)).
  returned: with O(fail=false)
  type: dict
metrics:
  description: The same as metrics for node_exporter's textfile collector.
  returned: with O(fail=false)
  type: str
"""
