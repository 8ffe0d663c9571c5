# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell a running systemd that unit files changed."""

from __future__ import annotations

from .._base.command import Runner, RunResult
from .._base.fs import Root
from .._base.paths import UNITS_DIR

_ASKED = ("LoadState", "NeedDaemonReload")


def is_running(root: Root) -> bool:
    """Whether systemd is process 1."""
    return root.exists("/run/systemd/system")


def reload(runner: Runner) -> RunResult:
    """Have systemd read all unit files again."""
    return runner.run("systemctl", "daemon-reload")


def reload_if_stale(root: Root, runner: Runner, name: str) -> None:
    """Have systemd read all unit files again if it loaded one of ours from a file that has changed since.

    A unit that is not loaded is read when it is needed. Reading all units takes longer than binding all devices, and
    grows with their number.
    """
    if not is_running(root):
        return
    options = ["--property=" + key for key in _ASKED]
    said = runner.run("systemctl", "show", *options, name)
    state = dict(line.partition("=")[::2] for line in said.stdout.splitlines())
    load_state = "loaded" if root.exists(UNITS_DIR, name) else "not-found"
    if [state.get(key) for key in _ASKED] != [load_state, "no"]:
        reload(runner)
