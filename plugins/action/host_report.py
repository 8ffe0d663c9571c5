# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Summarise in a record and in one line what the run has found out about a host. Does nothing on the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import times
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.fleet import REGISTERED, host_record
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.metrics import render
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import settings


class ActionModule(ActionBase):
    """Reads the variables that the tasks before it registered."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make the record."""
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(
            {"fail": {"type": "bool", "default": False}, "maintenance": {"type": "str", "default": ""}}
        )
        known = task_vars or {}
        record = host_record(
            known.get("inventory_hostname", ""),
            {name: known[name] for name in REGISTERED if name in known and not settings.is_fact(known, name)},
            args["maintenance"],
        )
        found = "%s: %s" % (record["state"], record["reason"]) if record["reason"] else "in the declared state"
        result = {"changed": False, "msg": "%s: %s" % (record["name"], found)}
        if args["fail"]:
            # Only the one line is wanted then: everything else stays out of the output.
            return dict(result, failed=record["state"] != "ok")
        now = times.utc_now()
        record["checked_at"] = times.stamp(now)
        return dict(result, record=record, metrics=render(record, now.timestamp()))
