# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the fleet report on the controller."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import times
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.lock import Lock, unless_check_mode
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import fleet, slices
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.metrics import render
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.record import blank
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import settings

_PARTS = {"page": "page.html", "style": "style.css", "script": "script.js"}
_PARTS_DIR = os.path.normpath(os.path.join(os.path.dirname(__file__), "..", "..", "playbooks", "files", "report"))
_METRICS, _JSON = "metrics", "report.json"
_DIR, _DEFAULT_DIR = "noiommu_report_dir", "noiommu-report"
_PRUNE = "noiommu_report_prune"
# Thousands of files are written in less.
_WAIT = 300.0
_ARGUMENTS = {
    "hosts": {"type": "list", "elements": "str", "required": True},
    "dest": {"type": "str", "required": True},
    "inventory": {"type": "list", "elements": "str", "default": []},
    "prune": {"type": "bool", "default": False},
}


class ActionModule(ActionBase):
    """Collects what host_report returned for each host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the files, or in check mode predict whether their content would change."""
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(_ARGUMENTS)
        known = task_vars or {}
        hostvars = known["hostvars"]
        try:
            # With run_once, these are the variables of some host, and that host's facts may have overridden them.
            said, prune = args["dest"], args["prune"]
            if settings.is_fact(known, _DIR):
                said = str(_declared(hostvars, args["hosts"], _DIR, _DEFAULT_DIR))
            if settings.is_fact(known, _PRUNE):
                prune = boolean(_declared(hostvars, args["hosts"], _PRUNE, False), strict=False)
            dest = os.path.abspath(os.path.expanduser(said))
            now = times.stamp(times.utc_now())
            records = [_record(hostvars, name, now) for name in args["hosts"]]
            inventory = [fleet.text(name) for name in args["inventory"]] if prune else None
            return {"dest": dest, **write(records, dest, now, inventory, self._task.check_mode)}
        except HostError as exc:
            return {"failed": True, **exc.as_failure()}


def _declared(hostvars: Any, names: list[str], variable: str, default: Any) -> Any:
    """Return what is declared for the first host whose facts do not override our variables."""
    honest = [name for name in names if not settings.foreign_facts(hostvars.raw_get(name) or {})]
    if not honest:
        settings.require_no_override(hostvars.raw_get(names[0]))
    return hostvars[honest[0]].get(variable, default)


def _record(hostvars: Any, name: str, now: str) -> dict[str, Any]:
    """Return a host's record; from the raw variables, because nothing that a host answered may act as a template."""
    known = hostvars.raw_get(name) or {}
    registered = {} if settings.is_fact(known, "host_report_result") else known.get("host_report_result") or {}
    if "record" in registered:
        return registered["record"]
    why = fleet.text(registered.get("msg") or "The run did not get to this host.")
    return dict(blank("failed", why), name=fleet.text(name), refusals=[], checked_at=now)


def read_parts() -> dict[str, str]:
    """Return the page and its parts."""
    parts = {}
    for name, path in _PARTS.items():
        with open(os.path.join(_PARTS_DIR, path), encoding="utf-8") as stream:
            parts[name] = stream.read()
    return parts


def write(
    records: list[dict[str, Any]], dest: str, now: str, inventory: list[str] | None = None, check_mode: bool = False
) -> dict[str, Any]:
    """Merge records into the page, the JSON and the metrics; say whether the content of any of them changes.

    With the names in an ``inventory``, what is there of other hosts is removed; without, nothing is.
    """
    root = Root()
    lock = Lock(
        os.path.join(dest, ".lock"),
        "Another run writes the report in %s" % dest,
        "Let the user who runs this write there, on a filesystem with locks.",
        0o666,
    )
    with unless_check_mode(root, check_mode, _WAIT, lock):
        before = slices.earlier(root, os.path.join(dest, _JSON))
        merged = slices.merge(records, before.records, now, inventory)
        report = fleet.fleet(merged.fresh + merged.kept, now)
        files = {"report.html": fleet.render_page(report, read_parts()), _JSON: fleet.render_json(report)}
        files.update((_metrics_of(host["name"]), _render(host)) for host in merged.fresh)
        stale = [] if inventory is None else _metrics_of_others(root, dest, report, inventory)
        changed = bool(stale) or any(not _says(root, os.path.join(dest, name), text) for name, text in files.items())
        for name, text in {} if check_mode else files.items():
            root.write_file(os.path.join(dest, name), text)
        for name in [] if check_mode else stale:
            root.remove_file(os.path.join(dest, name))
    return {
        "changed": changed,
        "summary": report["summary"],
        "checked": len(records),
        "kept": len(report["hosts"]) - len(records),
        "removed": merged.removed,
        **({"warnings": ["Left out of %s: %s" % (_JSON, "; ".join(before.damaged))]} if before.damaged else {}),
    }


def _render(host: dict[str, Any]) -> str:
    checked = times.parse_stamp(host["checked_at"]) or times.utc_now()
    return render(host, checked.timestamp(), {"host": host["name"]})


def _says(root: Root, path: str, text: str) -> bool:
    """Whether a file already has this content, apart from the times in it."""
    before = root.read_bytes(path)
    return before is not None and fleet.without_times(before.decode("utf-8", "replace")) == fleet.without_times(text)


def _metrics_of(host: str) -> str:
    return "%s/%s.prom" % (_METRICS, fleet.file_name(host))


def _metrics_of_others(root: Root, dest: str, report: dict[str, Any], inventory: list[str]) -> list[str]:
    """Return our existing files: a host that was removed must not be watched for ever."""
    current = {_metrics_of(name) for name in [*inventory, *(host["name"] for host in report["hosts"])]}
    names = (os.path.join(_METRICS, name) for name in root.listdir(dest, _METRICS) if name.endswith(".prom"))
    others = [name for name in names if name not in current]
    return [name for name in others if (root.read_text(dest, name) or "").startswith("# HELP noiommu_state ")]
