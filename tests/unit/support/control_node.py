# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real runs of playbooks and roles. A script in the place of ssh notes whom it should reach, and reaches nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

COLLECTION = Path(__file__).resolve().parents[3]


class Run(NamedTuple):
    """What became of one run."""

    rc: int
    said: str
    reached: set[str]

    def told(self, host: str) -> str:
        """Return what was said of one host's failure."""
        return "\n".join(line for line in self.said.splitlines() if "[%s]" % host in line)


class Control:
    """A control node with an inventory of its own."""

    def __init__(self, path: Path, collections: Path = COLLECTION / ".cache/unit") -> None:
        self.path, self._collections = path, collections
        self._calls = path / "calls"
        ssh = path / "ssh"
        ssh.write_text('#!/bin/sh\necho "$@" >>%s\nexit 255\n' % self._calls)
        ssh.chmod(0o755)

    def run(
        self, playbook: str | list[dict[str, Any]], hosts: dict[str, dict[str, Any]], *args: str, **group: Any
    ) -> Run:
        """Run a playbook of the collection, or plays, on hosts with these variables beside those of the group."""
        self._calls.write_text("")
        inventory = {"noiommu": {"hosts": hosts, "vars": group}}
        (self.path / "hosts.yml").write_text(json.dumps(inventory))
        if not isinstance(playbook, str):
            (self.path / "plays.yml").write_text(json.dumps(playbook))
            playbook = "plays.yml"
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml", playbook, *args],
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(self._collections),
                "ANSIBLE_SSH_EXECUTABLE": str(self.path / "ssh"),
                "ANSIBLE_LOCAL_TEMP": str(self.path / "tmp"),
                "ANSIBLE_REMOTE_TEMP": str(self.path / "tmp"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_PIPELINING": "1",
            },
        )
        calls = self._calls.read_text()
        return Run(done.returncode, done.stdout, {host for host in hosts if " %s " % host in calls})


def play(hosts: str, **keywords: Any) -> dict[str, Any]:
    """Return a play without facts."""
    return {"hosts": hosts, "gather_facts": False, **keywords}


def role(how: str, name: str, **variables: Any) -> dict[str, Any]:
    """Return a task that includes or imports a role of the collection."""
    return {"ansible.builtin.%s_role" % how: {"name": "baremetal.noiommu." + name}, "vars": variables}
