# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Telling a running systemd of units whose files changed."""

from __future__ import annotations

from .._base.fs import Root, Runner, RunResult
from .._base.paths import UNITS_DIR

_ASKED = ("LoadState", "NeedDaemonReload")


def is_running(root: Root) -> bool:
    """Whether systemd is process 1."""
    return root.exists("/run/systemd/system")


def reload(runner: Runner) -> RunResult:
    """Have it read all units anew."""
    return runner.run("systemctl", "daemon-reload")


def reload_if_stale(root: Root, runner: Runner, name: str) -> None:
    """Have it read all units anew if what it knows of one of ours is not what the files say.

    A unit that it does not have in memory it reads by itself as soon as it is asked for, and at the next boot. Reading
    all takes it longer than binding all devices, the more units the longer.
    """
    if not is_running(root):
        return
    options = ["--property=" + one for one in _ASKED]
    said = runner.run("systemctl", "show", *options, name)
    state = dict(line.partition("=")[::2] for line in said.stdout.splitlines())
    load_state = "loaded" if root.exists(UNITS_DIR, name) else "not-found"
    if [state.get(one) for one in _ASKED] != [load_state, "no"]:
        reload(runner)
