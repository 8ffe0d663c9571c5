# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends a signal to the module vfio_binding when it is half done, on the host: SIGNAL FIRST-DEVICE LAST-DEVICE."""
from __future__ import annotations

import os
import signal
import sys
import time

NUMBER = getattr(signal, "SIG" + sys.argv[1])
FIRST, LAST = sys.argv[2:]


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


deadline = time.monotonic() + 500
pid = None
while pid is None and time.monotonic() < deadline:
    time.sleep(0.1)
    pid = module()
while driver(FIRST) != "vfio-pci" and time.monotonic() < deadline:
    time.sleep(0.001)
if pid is None or driver(LAST) == "vfio-pci":
    sys.exit("too late: %s %s" % (pid, driver(LAST)))
os.kill(pid, NUMBER)
print("sent")
