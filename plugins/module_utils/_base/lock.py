# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time on a host: two that load and save the same records would lose what the other wrote."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator

from .errors import HostError
from .fs import Root
from .paths import LOCK

# So long another run may take before this one gives up; the tool at boot has five minutes for everything.
WAIT = 60.0
# A module that is built for several kernels takes longer, and goes on if its playbook was killed.
BUILD_WAIT = 900.0


@contextlib.contextmanager
def exclusive(root: Root, wait: float | None = None) -> Iterator[None]:
    """Keep other runs out. The kernel ends the lock with the process, whatever ends that."""
    handle = _open(root)
    try:
        _take(root, handle, WAIT if wait is None else wait)
        with contextlib.suppress(OSError):  # a full /run keeps nobody from working: who it is would be good to know
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        # The file stays: a run that waits has it open, and would hold the lock of one that nobody else finds.
        os.close(handle)


def unless_check_mode(
    root: Root, check_mode: bool, wait: float | None = None
) -> contextlib.AbstractContextManager[None]:
    """Keep other runs out of one that changes something."""
    return contextlib.nullcontext() if check_mode else exclusive(root, wait)


def _open(root: Root) -> int:
    try:
        root.make_dirs(os.path.dirname(LOCK))
        return os.open(root.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise HostError(
            "file",
            "Could not open %s, which keeps two runs apart: %s." % (LOCK, exc.strerror),
            evidence=["%s: %s" % (LOCK, exc.strerror)],
            remedy="Run with become: true.",
            errno=exc.errno,
        ) from exc


def _take(root: Root, handle: int, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise HostError(
                    "busy",
                    "Another run works on this host, and did not end within %d s." % wait,
                    evidence=["%s is locked by %s" % (LOCK, _holder(root))],
                    remedy="Wait until it has ended, or end it, then run again.",
                ) from exc
        time.sleep(0.2)


def _holder(root: Root) -> str:
    pid = root.read_text(LOCK)
    if not pid:
        return "a process that has not said which it is"
    return "process %s (%s)" % (pid, root.read_text("/proc", pid, "comm") or "?")
