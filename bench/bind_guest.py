# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Runs on the host: bind devices with each tool in turn, put them back in between, print seconds as JSON.

    python3 - ALL FEW NOTHING TABLES COUNT DEVICE...

ALL is the module vfio_binding as Ansible sends it, with its arguments: what is timed is what Ansible runs here. FEW is
the same for the first COUNT devices, NOTHING with an empty list. TABLES is how many of the two states to start from.
"""

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import time

ALL, FEW, NOTHING = sys.argv[1:4]
TABLES, COUNT = int(sys.argv[4]), int(sys.argv[5])
DEVICES = sys.argv[6:]
PCI = "/sys/bus/pci/devices/"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}


def driver(address):
    try:
        return os.path.basename(os.readlink(PCI + address + "/driver"))
    except OSError:
        return None


def write(path, text):
    with open(path, "w", encoding="ascii") as attribute:
        attribute.write(text)


def give_back(probe):
    """Put all devices back; with ``probe`` to the host's driver, else to none, as new virtual functions are."""
    for address in DEVICES:
        write(PCI + address + "/driver_override", "\n")
        if driver(address) == "vfio-pci" or (driver(address) and not probe):
            write(PCI + address + "/driver/unbind", address)
    for address in DEVICES if probe else ():
        write("/sys/bus/pci/drivers_probe", address)
    subprocess.run(["udevadm", "settle"], check=True)
    time.sleep(3)


def bound():
    return sum(driver(address) == "vfio-pci" for address in DEVICES)


def move(address):
    """The least that has to be done for a device."""
    write(PCI + address + "/driver_override", "vfio-pci")
    if driver(address):
        write(PCI + address + "/driver/unbind", address)
    write("/sys/bus/pci/drivers/vfio-pci/bind", address)


def plain(devices):
    for address in devices:
        move(address)


def plain_at_once(devices):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(move, devices))


def vfio_binding(devices):
    module(FEW if len(devices) == COUNT else ALL, True)


def devbind(devices):
    subprocess.run(["dpdk-devbind.py", "-b", "vfio-pci", *devices], check=True, **QUIET)


def driverctl(devices):
    for address in devices:
        subprocess.run(["driverctl", "set-override", address, "vfio-pci"], check=True, **QUIET)


def driverctl_back(devices):
    for address in devices:
        subprocess.run(["driverctl", "unset-override", address], check=True, **QUIET)


def module(path, changed):
    done = subprocess.run([sys.executable, path], stdout=subprocess.PIPE, check=False)
    answer = json.loads(done.stdout)
    assert answer.get("changed") is changed, answer


def forget(_devices):
    """Take away what the module keeps, so that its next run has all of it to do again."""
    shutil.rmtree("/var/lib/noiommu")
    shutil.rmtree("/etc/noiommu")
    shutil.rmtree("/usr/local/lib/noiommu")
    os.unlink("/usr/local/sbin/noiommu-verify")
    os.unlink("/etc/systemd/system/noiommu-bindings.service")
    os.unlink("/etc/systemd/system/multi-user.target.wants/noiommu-bindings.service")
    for kind in ("by-address", "by-mac"):
        shutil.rmtree("/dev/vfio/" + kind, ignore_errors=True)
    subprocess.run(["systemctl", "daemon-reload"], check=True)


TOOLS = {
    "plain": (plain, None),
    "plain, 16 at once": (plain_at_once, None),
    "vfio_binding": (vfio_binding, forget),
    "dpdk-devbind.py": (devbind, None),
    "driverctl": (driverctl, driverctl_back),
}


def timed(run, *args):
    start = time.monotonic()
    run(*args)
    return time.monotonic() - start


# Twice, for the caches; nothing is recorded any more, so this finds nothing to do.
start = min(timed(module, NOTHING, False) for _again in range(2))
subprocess.run(["modprobe", "vfio-pci"], check=True)
rounds = {}
for title, probe in (("from the host's driver", True), ("from no driver", False))[:TABLES]:
    seconds = rounds[title] = {"vfio_binding, no devices": {"all": start}}
    for name, (run, after) in TOOLS.items():
        if name == "driverctl" and not shutil.which(name):
            continue
        seconds[name] = {}
        for much, devices in (("few", DEVICES[:COUNT]), ("all", DEVICES)):
            give_back(probe)
            assert bound() == 0, name
            seconds[name][much] = timed(run, devices)
            assert bound() == len(devices), (name, bound())
            if after:
                after(devices)
print(json.dumps(rounds))
