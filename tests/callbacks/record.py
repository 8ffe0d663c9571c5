# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what each playbook run changed, task by task, for tests that compare runs."""

from __future__ import annotations

DOCUMENTATION = """
name: record
type: aggregate
author: baremetal.noiommu contributors (@baremetal-noiommu)
short_description: Appends every task result to a file of JSON lines
description:
  - For the collection's own tests. One file per run, below C($NOIOMMU_RUN/record),
    named C(check-PLAYBOOK-N.jsonl) or C(run-PLAYBOOK-N.jsonl) with N counting from 1.
"""

import itertools
import json
import os
from pathlib import Path

from ansible import context
from ansible.plugins.callback import CallbackBase

# What happens on the control node alone.
LOCAL = {
    "ansible.builtin." + name
    for name in (
        "assert",
        "debug",
        "fail",
        "import_role",
        "import_tasks",
        "include_role",
        "include_tasks",
        "meta",
        "set_fact",
        "validate_argument_spec",
    )
} | {"baremetal.noiommu." + name for name in ("declaration", "fleet_report", "host_report")}


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self._file = None

    def v2_playbook_on_start(self, playbook):
        run = os.environ.get("NOIOMMU_RUN")
        # The scenario's own machinery is not what a test compares.
        if run and Path(playbook._file_name).stem not in ("create", "destroy"):
            folder = Path(run, "record")
            folder.mkdir(parents=True, exist_ok=True)
            kind = "%s-%s" % ("check" if context.CLIARGS.get("check") else "run", Path(playbook._file_name).stem)
            self._file = _new_file(folder, kind)

    def _write(self, result, status):
        # The plays on localhost boot the machines and throw them away, this file's folder included.
        if self._file is None or result._host.get_name() == "localhost":
            return
        outcome = result._result
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(
                json.dumps(
                    {
                        "task": result._task.get_name(),
                        "host": result._host.get_name(),
                        "status": status,
                        "changed": bool(outcome.get("changed")),
                        "remote": result._task.action not in LOCAL,
                    }
                )
                + "\n"
            )

    def v2_runner_on_ok(self, result):
        self._write(result, "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write(result, "failed")

    def v2_runner_on_skipped(self, result):
        self._write(result, "skipped")

    def v2_runner_on_unreachable(self, result):
        self._write(result, "unreachable")


def _new_file(folder, kind):
    """Return the first file that is not there yet, made: another run may be looking for one."""
    for number in itertools.count(1):
        path = folder / ("%s-%d.jsonl" % (kind, number))
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise AssertionError("the numbers do not end")
