# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have one run at a time change a host or a report: two that load and save the same files would lose changes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator, NamedTuple

from .errors import HostError, errno_text
from .fs import Root
from .paths import LOCK

# How long to wait for another run; the boot unit has five minutes for everything.
WAIT = 60.0
# Building the module for several kernels takes longer, and goes on after its playbook was killed.
BUILD_WAIT = 900.0
BUSY = "busy"


class Lock(NamedTuple):
    """What to lock, and what to say if that fails."""

    path: str
    busy: str
    cannot_open: str  # the remedy
    mode: int = 0o600


HOST = Lock(LOCK, "Another run is working on this host", "Run with become: true.")


@contextlib.contextmanager
def exclusive(root: Root, wait: float | None = None, lock: Lock = HOST) -> Iterator[None]:
    """Keep other runs out. The kernel drops the lock when the process ends, however it ends."""
    handle = _open(root, lock)
    try:
        _take(root, handle, WAIT if wait is None else wait, lock)
        with contextlib.suppress(OSError):  # a full /run must not stop a run: the holder is only named for messages
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        # The file stays: a waiting run has it open, and would lock a file that no other run finds.
        os.close(handle)


def unless_check_mode(
    root: Root, check_mode: bool, wait: float | None = None, lock: Lock = HOST
) -> contextlib.AbstractContextManager[None]:
    """Keep other runs out of one that changes something."""
    return contextlib.nullcontext() if check_mode else exclusive(root, wait, lock)


def _open(root: Root, lock: Lock) -> int:
    try:
        root.make_dirs(os.path.dirname(lock.path))
        return os.open(root.path(lock.path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, lock.mode)
    except OSError as exc:
        raise _unusable(lock, exc) from exc


def _unusable(lock: Lock, exc: OSError) -> HostError:
    return HostError(
        "file",
        "Could not open %s, which keeps two runs apart: %s." % (lock.path, exc.strerror),
        evidence=["%s: %s" % (lock.path, errno_text(exc))],
        remedy=lock.cannot_open,
        errno=exc.errno,
    )


def _take(root: Root, handle: int, wait: float, lock: Lock) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise HostError(
                    BUSY,
                    "%s, and did not end within %d s." % (lock.busy, wait),
                    evidence=["%s is locked by %s" % (lock.path, _holder(root, lock))],
                    remedy="Wait until it has ended, or end it, then run again.",
                ) from exc
        except OSError as exc:  # a filesystem without locks
            raise _unusable(lock, exc) from exc
        time.sleep(0.2)


def _holder(root: Root, lock: Lock) -> str:
    pid = root.read_text(lock.path)
    if not pid:
        return "an unknown process"
    return "process %s (%s)" % (pid, root.read_text("/proc", pid, "comm") or "?")
