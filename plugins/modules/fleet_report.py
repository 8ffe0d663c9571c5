#!/usr/bin/python
# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Writes a report on all hosts as a page, as JSON and as metrics
version_added: 1.0.0
author:
  - baremetal.noiommu contributors (@baremetal-noiommu)
description:
  - Takes what M(baremetal.noiommu.host_report) returned for each host, registered as C(host_report_result), and writes
    files on the controller. Does nothing on any host.
  - Writes C(report.html), one page that needs no other file, C(report.json) after C(docs/report.schema.json), and
    C(metrics/HOST.prom) for each host.
  - Merges into the report that is there. What earlier runs found out about hosts that are not in this one stays, with
    the time of its check. Runs may write one report side by side; a lock in the directory keeps them apart.
extends_documentation_fragment:
  - baremetal.noiommu._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
    details:
      - The times at which the report was made are renewed, and do not count as a change.
  platform:
    platforms: posix
    support: full
options:
  hosts:
    description: The names of the hosts.
    type: list
    elements: str
    required: true
  dest:
    description: The directory on the controller, from the current one if it is relative.
    type: str
    required: true
  inventory:
    description: The names of all hosts of the inventory. Only O(prune) needs them.
    type: list
    elements: str
    default: []
  prune:
    description:
      - Removes hosts from the report that are neither in O(inventory) nor in O(hosts), and their files from C(metrics).
      - Must be V(false) if the inventory of a run has only some of the hosts, as that of an AWX job slice.
    type: bool
    default: false
seealso:
  - module: baremetal.noiommu.host_report
"""

EXAMPLES = r"""
- name: Say of each host what was found
  baremetal.noiommu.host_report:
  register: host_report_result

- name: Write the report
  baremetal.noiommu.fleet_report:
    hosts: "{{ ansible_play_hosts_all }}"
    dest: noiommu-report
  run_once: true
"""

RETURN = r"""
dest:
  description: The directory.
  returned: success
  type: str
checked:
  description: How many hosts this run checked.
  returned: success
  type: int
  sample: 2
kept:
  description: How many hosts of the report only earlier runs checked.
  returned: success
  type: int
  sample: 2
removed:
  description: The hosts that are no longer in the report.
  returned: success
  type: list
  elements: str
  sample: [edge7]
summary:
  description: How many hosts there are in the whole report, and how many of each state.
  returned: success
  type: dict
  sample: {"hosts": 4, "ok": 2, "drifted": 1, "unreachable": 1}
"""
