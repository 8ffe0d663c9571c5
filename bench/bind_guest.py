# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Runs on the host: bind all devices with each tool in turn, put them back in between, print seconds as JSON.

    python3 - MODULE NOTHING DEVICE...

MODULE is the module vfio_binding as Ansible sends it, with its arguments: what is timed is what Ansible runs here.
NOTHING is the same with an empty list.
"""
import json
import os
import shutil
import subprocess
import sys
import time

MODULE, NOTHING, DEVICES = sys.argv[1], sys.argv[2], sys.argv[3:]
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
        if driver(address) == "vfio-pci" or driver(address) and not probe:
            write(PCI + address + "/driver/unbind", address)
    for address in DEVICES if probe else ():
        write("/sys/bus/pci/drivers_probe", address)
    subprocess.run(["udevadm", "settle"], check=True)
    time.sleep(3)


def bound():
    return sum(driver(address) == "vfio-pci" for address in DEVICES)


def plain():
    """The least that the kernel needs: what every one of the tools has to wait for."""
    for address in DEVICES:
        write(PCI + address + "/driver_override", "vfio-pci")
        if driver(address):
            write(PCI + address + "/driver/unbind", address)
        write("/sys/bus/pci/drivers/vfio-pci/bind", address)


def driverctl():
    for address in DEVICES:
        subprocess.run(["driverctl", "set-override", address, "vfio-pci"], check=True, **QUIET)


def driverctl_back():
    for address in DEVICES:
        subprocess.run(["driverctl", "unset-override", address], check=True, **QUIET)


def module(path, changed):
    done = subprocess.run([sys.executable, path], stdout=subprocess.PIPE, check=False)
    answer = json.loads(done.stdout)
    assert answer.get("changed") is changed, answer


TOOLS = {
    "plain": (plain, None),
    "vfio_binding": (lambda: module(MODULE, True), None),
    "dpdk-devbind.py": (
        lambda: subprocess.run(["dpdk-devbind.py", "-b", "vfio-pci", *DEVICES], check=True, **QUIET), None
    ),
    "driverctl": (driverctl, driverctl_back),
}


def forget():
    """Take away what the module keeps, so that its next run has all of it to do again."""
    shutil.rmtree("/var/lib/noiommu")
    shutil.rmtree("/etc/noiommu")
    shutil.rmtree("/usr/local/lib/noiommu")
    os.unlink("/etc/systemd/system/noiommu-bindings.service")
    os.unlink("/etc/systemd/system/multi-user.target.wants/noiommu-bindings.service")
    for kind in ("by-address", "by-mac"):
        shutil.rmtree("/dev/vfio/" + kind, ignore_errors=True)


def timed(run):
    start = time.monotonic()
    run()
    return time.monotonic() - start


# Twice, for the caches; nothing is recorded any more, so this finds nothing to do.
nothing = min(timed(lambda: module(NOTHING, False)) for _again in range(2))
subprocess.run(["modprobe", "vfio-pci"], check=True)
rounds = {}
for title, probe in (("from the host's driver", True), ("from no driver", False)):
    seconds = rounds[title] = {}
    for name, (run, after) in TOOLS.items():
        give_back(probe)
        assert bound() == 0, name
        seconds[name] = timed(run)
        assert bound() == len(DEVICES), (name, bound())
        if after:
            after()
        if name == "vfio_binding":
            seconds["vfio_binding without Python's start"] = seconds[name] - nothing
            forget()
print(json.dumps(rounds))
