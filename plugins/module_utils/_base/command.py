# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run commands on the host."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

from .errors import errno_text


class RunResult(NamedTuple):
    """The exit code and output of a command."""

    rc: int
    stdout: str
    stderr: str


class Runner:
    """Runs commands on the host; tests put a fake in its place."""

    def run(self, *argv: str) -> RunResult:
        """Run a command without a shell. A missing command gives rc 127."""
        env = dict(os.environ, LC_ALL="C")
        # kmod's and systemd's tools live in sbin, which a plain user's PATH over sudo may lack.
        env["PATH"] = env.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, check=False
            )
        except OSError as exc:
            return RunResult(127, "", "%s: %s" % (argv[0], errno_text(exc)))
        return RunResult(done.returncode, *(out.decode("utf-8", "replace") for out in (done.stdout, done.stderr)))
