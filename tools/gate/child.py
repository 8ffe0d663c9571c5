# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Long commands that clean up after themselves when a signal comes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

from rig.common import RigError


def run(command: Sequence[str]) -> tuple[int, bool]:
    """Run a command; its exit code, and whether a signal to us ended it.

    It gets the time to stop its machines: nothing kills it. ctrl-C at a terminal reaches it without our help.
    """
    signals: list[int] = []
    try:
        process = subprocess.Popen(command)
    except OSError as exc:
        raise RigError(f"{command[0]} cannot be run", str(exc), "see that it is there and on PATH") from exc

    def hear(signum: int, _frame: FrameType | None) -> None:
        signals.append(signum)
        if signum != signal.SIGINT and process.poll() is None:
            process.send_signal(signum)

    before = {signum: signal.signal(signum, hear) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        code = process.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if signals:
        return 128 + signals[0], True
    return (code if code >= 0 else 128 - code), code < 0
