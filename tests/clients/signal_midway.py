# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends a signal to the module vfio_binding when it is half done, on the host: SIGNAL DEVICE...

The devices are moved at once, so that any of them may be the first. Prints those that are bound by then.
"""

from __future__ import annotations

import os
import signal
import sys
import time

NUMBER = getattr(signal, "SIG" + sys.argv[1])
DEVICES = sys.argv[2:]


def driver(address):
    try:
        return os.path.basename(os.readlink("/sys/bus/pci/devices/%s/driver" % address))
    except OSError:
        return None


def module():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as line:
                words = line.read().split(b"\0")
        except OSError:
            continue
        # The interpreter itself, and neither the shell nor sudo around it.
        if b"python" in words[0] and any(b"AnsiballZ_vfio_binding" in word for word in words[1:2]):
            return int(pid)
    return None


def bound():
    return [address for address in DEVICES if driver(address) == "vfio-pci"]


deadline = time.monotonic() + 500
pid = None
while pid is None and time.monotonic() < deadline:
    time.sleep(0.1)
    pid = module()
# Whoever waits for its turn behind the module sees all of them bound.
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
while not bound() and time.monotonic() < deadline:
    time.sleep(0.001)
found = bound()
if pid is None or not 0 < len(found) < len(DEVICES):
    sys.exit("not in the middle: process %s, bound: %s" % (pid, found))
os.kill(pid, NUMBER)
print(*found)
