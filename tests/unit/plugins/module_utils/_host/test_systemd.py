# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import systemd as _systemd
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

NAME = "noiommu-bindings.service"


class Systemd(Runner):
    """Answers what it knows of a unit."""

    def __init__(self, answer: str, rc: int = 0) -> None:
        self.ran: list[str] = []
        self._answer = RunResult(rc, answer, "")

    def run(self, *argv: str) -> RunResult:
        self.ran.append(argv[1])
        return self._answer


@pytest.mark.parametrize(
    ("there", "answer", "reloads"),
    [
        (True, "LoadState=loaded\nNeedDaemonReload=no\n", False),
        (True, "NeedDaemonReload=no\nLoadState=loaded\n", False),
        (True, "LoadState=loaded\nNeedDaemonReload=yes\n", True),
        (True, "LoadState=not-found\nNeedDaemonReload=no\n", True),  # remembered as absent
        (False, "LoadState=not-found\nNeedDaemonReload=no\n", False),
        (False, "LoadState=loaded\nNeedDaemonReload=yes\n", True),
        (False, "", True),  # no answer
    ],
)
def test_units_are_read_anew_only_where_the_files_say_something_else(
    tree: Tree, there: bool, answer: str, reloads: bool
) -> None:
    tree.dir("/run/systemd/system")
    if there:
        tree.file("/etc/systemd/system/" + NAME, "[Unit]")
    systemd = Systemd(answer)
    _systemd.reload_if_stale(tree.root, systemd, NAME)
    assert systemd.ran == ["show"] + ["daemon-reload"] * reloads


def test_nothing_is_asked_where_systemd_does_not_run(tree: Tree) -> None:
    systemd = Systemd("")
    _systemd.reload_if_stale(tree.root, systemd, NAME)
    assert systemd.ran == []
