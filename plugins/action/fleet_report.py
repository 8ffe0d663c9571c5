# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the fleet report on the controller."""

from __future__ import annotations

import os
from typing import Any, Iterable

from ansible.plugins.action import ActionBase
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import times
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._report import fleet
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.metrics import render
from ansible_collections.baremetal.noiommu.plugins.module_utils._report.record import blank
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import settings

_PARTS = {"page": "page.html", "style": "style.css", "script": "script.js"}
_PARTS_DIR = os.path.normpath(os.path.join(os.path.dirname(__file__), "..", "..", "playbooks", "files", "report"))
_METRICS = "metrics"
_DIR, _DEFAULT_DIR = "noiommu_report_dir", "noiommu-report"


class ActionModule(ActionBase):
    """Collects what host_report returned for each host."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the files, or in check mode predict whether they would say something new."""
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(
            {"hosts": {"type": "list", "elements": "str", "required": True}, "dest": {"type": "str", "required": True}}
        )
        known = task_vars or {}
        hostvars = known["hostvars"]
        try:
            # Run once, this has the variables of any one host, and facts of that host may have decided over dest.
            said = _declared_dest(hostvars, args["hosts"]) if settings.is_fact(known, _DIR) else args["dest"]
            dest = os.path.abspath(os.path.expanduser(said))
            report = fleet.fleet((_record(hostvars, name) for name in args["hosts"]), times.stamp(times.utc_now()))
            changed = write(report, dest, self._task.check_mode)
        except HostError as exc:
            return {"failed": True, **exc.as_failure()}
        return {"changed": changed, "dest": dest, "summary": report["summary"]}


def _declared_dest(hostvars: Any, names: list[str]) -> str:
    """Return the directory that is declared for the first host whose facts do not decide over variables of ours."""
    honest = [name for name in names if not settings.foreign_facts(hostvars.raw_get(name) or {})]
    if not honest:
        settings.require_no_override(hostvars.raw_get(names[0]))
    return str(hostvars[honest[0]].get(_DIR, _DEFAULT_DIR))


def _record(hostvars: Any, name: str) -> dict[str, Any]:
    """Return a host's record; the raw variables, for nothing that a host said is ever a template."""
    known = hostvars.raw_get(name) or {}
    registered = {} if settings.is_fact(known, "host_report_result") else known.get("host_report_result") or {}
    if "record" in registered:
        return registered["record"]
    why = fleet.text(registered.get("msg") or "The run did not get to this host.")
    return dict(blank("failed", why), name=fleet.text(name), refusals=[])


def read_parts() -> dict[str, str]:
    """Return the page and what goes into it."""
    parts = {}
    for name, path in _PARTS.items():
        with open(os.path.join(_PARTS_DIR, path), encoding="utf-8") as stream:
            parts[name] = stream.read()
    return parts


def write(report: dict[str, Any], dest: str, check_mode: bool = False) -> bool:
    """Write the page, the JSON and the metrics; say whether any of them says something new."""
    root = Root()
    checked = times.utc_now().timestamp()
    files = {"report.html": fleet.render_page(report, read_parts()), "report.json": fleet.render_json(report)}
    for host in report["hosts"]:
        name = "%s/%s.prom" % (_METRICS, fleet.file_name(host["name"]))
        files[name] = render(host, checked, {"host": host["name"]})
    stale = [name for name in _metric_files(root, dest) if name not in files]
    changed = bool(stale)
    for name, content in files.items():
        path = os.path.join(dest, name)
        before = root.read_bytes(path)
        same = before is not None and fleet.without_times(before.decode("utf-8", "replace")) == fleet.without_times(
            content
        )
        changed = changed or not same
        if not check_mode:
            root.write_file(path, content)
    for name in [] if check_mode else stale:
        root.remove_file(os.path.join(dest, name))
    return changed


def _metric_files(root: Root, dest: str) -> Iterable[str]:
    """Return the files of ours that are there: a host that has left must not be watched for ever."""
    for name in root.listdir(dest, _METRICS):
        path = os.path.join(_METRICS, name)
        if name.endswith(".prom") and (root.read_text(dest, path) or "").startswith("# HELP noiommu_state "):
            yield path
