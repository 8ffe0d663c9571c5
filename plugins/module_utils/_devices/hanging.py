# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An unbind that does not return, such as the kernel's "waiting for eth1 to become free".

Whoever writes the request sleeps where no signal wakes it, and so does everybody who touches the device's driver or its
override afterwards. So a process of its own writes it, and while that hangs, nobody here touches the device.
"""

from __future__ import annotations

import contextlib
import os
import syslog
from typing import TYPE_CHECKING, Callable

from .._base.errors import HostError, errno_text
from .._base.fs import Root, refused_write
from .._base.paths import HANGING

if TYPE_CHECKING:  # most who import this only ask what hangs
    from .writer import Write, Writer

# After this time the log says what is waited for, and after the second one the run ends.
SAY_AFTER, GIVE_UP_AFTER = 5.0, 60.0


def refuse_hanging(root: Root, address: str) -> None:
    """Raise HostError if an unbind of this device, begun by an earlier run, still hangs."""
    writer = hanging(root, address)
    if writer is not None:
        raise _error(root, address, writer, "still hangs", [])


def hanging(root: Root, address: str) -> str | None:
    """Return the process that still waits for the device to be unbound, None if there is none."""
    path = "%s/%s" % (HANGING, address)
    words = (root.read_text(path) or "").split() if root.exists(path) else []
    # Process numbers are used again.
    return words[0] if len(words) == 2 and _start_time(root, words[0]) == words[1] else None


def _start_time(root: Root, pid: str) -> str | None:
    """Return when a process was started, in ticks since the boot; None if there is no such process."""
    stat = root.read_text("/proc", pid, "stat")
    # The name before it may contain anything.
    return stat.rpartition(")")[2].split()[19] if stat else None


def unbind(root: Root, writer: Writer, address: str, driver: str, holders: Callable[[], list[str]]) -> None:
    """Unbind the device, and wait for it for a while. ``holders`` says what may hold the device."""
    path = "/sys/bus/pci/drivers/%s/unbind" % driver
    try:
        write = writer.write(root.path(path), address)
    except OSError as exc:
        raise HostError(
            "kernel_write",
            "%s was not unbound: the process that would do it cannot be started." % address,
            evidence=[errno_text(exc) if exc.errno else str(exc)],
            remedy="See what keeps the host from starting processes, such as memory or a limit on their number.",
        ) from exc
    try:
        error = write.wait(SAY_AFTER)
        if error is None:
            error = _wait(root, address, write, holders)
    finally:
        write.forget()
    if error:
        raise refused_write(path, address, OSError(error, os.strerror(error)))


def _wait(root: Root, address: str, write: Write, holders: Callable[[], list[str]]) -> int:
    path = "%s/%s" % (HANGING, address)
    root.write_file(path, "%d %s\n" % (write.pid, _start_time(root, str(write.pid))), 0o600)
    syslog.syslog(
        syslog.LOG_WARNING,
        "noiommu: %s is not unbound after %d s. %s" % (address, SAY_AFTER, "; ".join(holders())),
    )
    error = write.wait(GIVE_UP_AFTER - SAY_AFTER)
    if error is None:
        raise _error(root, address, str(write.pid), "did not return within %d s" % GIVE_UP_AFTER, holders())
    with contextlib.suppress(HostError):
        root.remove_file(path)
        root.remove_empty_dir(HANGING)
    return error


def _error(root: Root, address: str, writer: str, what: str, evidence: list[str]) -> HostError:
    stack = [line.split()[-1] for line in (root.read_text("/proc", writer, "stack") or "").splitlines()]
    where = ["process %s waits in %s" % (writer, " < ".join(stack[:4]))] if stack else ["process %s waits" % writer]
    return HostError(
        "unbind_hangs",
        "The kernel's unbind of %s %s: something still holds the device." % (address, what),
        evidence=where + evidence,
        remedy="End what holds it (the kernel's log names an interface that it waits for; look at containers, network"
        " namespaces and processes with sockets on it), then run again: the next run finishes this. Until then nothing"
        " else must touch the device, or it hangs as well.",
    )
