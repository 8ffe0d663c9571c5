# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An unbind that does not return, such as the kernel's "waiting for eth1 to become free".

Whoever writes the request sleeps where no signal wakes it, and so does everybody who touches the device's driver or its
override afterwards. So a process of its own writes it, and while that hangs, nobody here touches the device.
"""

from __future__ import annotations

import contextlib
import subprocess
import syslog
import time
from typing import Callable

from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import HANGING

# After this time the log says what is waited for, and after the second one the run ends.
SAY_AFTER, GIVE_UP_AFTER = 5.0, 60.0
_WRITE = 'printf %s "$1" > "$2"'
_INTERVAL, _LONGEST_INTERVAL = 0.001, 0.1


def refuse_hanging(root: Root, address: str) -> None:
    """Raise HostError if an unbind of this device, begun by an earlier run, still hangs."""
    writer = hanging(root, address)
    if writer is not None:
        raise _error(root, address, writer, "still hangs", [])


def hanging(root: Root, address: str) -> str | None:
    """Return the process that still waits for the device to be unbound, None if there is none."""
    path = "%s/%s" % (HANGING, address)
    writer = root.read_text(path) if root.exists(path) else None
    # Process numbers are used again.
    words = (root.read_text("/proc", writer, "cmdline") or "").split("\0") if writer and writer.isdigit() else []
    return writer if address in words else None


def unbind(root: Root, address: str, driver: str, holders: Callable[[], list[str]]) -> None:
    """Have a process unbind the device, and wait for it for a while. ``holders`` says what may hold the device."""
    path = "/sys/bus/pci/drivers/%s/unbind" % driver
    _wait(root, address, _start(root.path(path), address), holders)


def _start(real: str, value: str) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    # A signal from the terminal is for the run: this process must not die half-way.
    return subprocess.Popen(
        ["/bin/sh", "-c", _WRITE, "sh", value, real],
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        start_new_session=True,
    )


def _wait(root: Root, address: str, writer: subprocess.Popen[bytes], holders: Callable[[], list[str]]) -> None:
    begin, interval, was_said = time.monotonic(), _INTERVAL, False
    path = "%s/%s" % (HANGING, address)
    while writer.poll() is None:
        waited = time.monotonic() - begin
        if waited >= SAY_AFTER and not was_said:
            was_said = True
            root.write_file(path, "%d\n" % writer.pid, 0o600)
            syslog.syslog(
                syslog.LOG_WARNING,
                "noiommu: %s is not unbound after %d s. %s" % (address, waited, "; ".join(holders())),
            )
        if waited >= GIVE_UP_AFTER:
            raise _error(root, address, str(writer.pid), "did not return within %d s" % waited, holders())
        time.sleep(interval)
        interval = min(2 * interval, _LONGEST_INTERVAL)
    if was_said:
        with contextlib.suppress(HostError):
            root.remove_file(path)
            root.remove_empty_dir(HANGING)


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
