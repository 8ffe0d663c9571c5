# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes and comes back is bound again within seconds, without Ansible."""

from __future__ import annotations

import re
import time

import pytest
from live import nics, on

HOST = "hotel"
DISK = "0000:00:18.0"
FIRST, SECOND, HOSTS = nics(HOST)
DECLARED = [FIRST, SECOND, DISK]
WITHIN = 60  # seconds; an emulated processor takes most of it to start Python
SERVICE = "noiommu-hotplug.service"


def driver(address: str) -> str:
    return on(HOST, f"basename $(readlink /sys/bus/pci/devices/{address}/driver) 2>/dev/null || true").strip()


def cycle(*addresses: str) -> None:
    removals = "; ".join(f"echo 1 > /sys/bus/pci/devices/{address}/remove" for address in addresses)
    on(HOST, f"{removals}; echo 1 > /sys/bus/pci/rescan")


def drivers_within(seconds: float, *addresses: str) -> list[str]:
    """Return the drivers as soon as all are VFIO's, or those that there are in the end."""
    deadline = time.monotonic() + seconds
    while True:
        found = [driver(address) for address in addresses]
        if found == ["vfio-pci"] * len(addresses) or time.monotonic() >= deadline:
            return found
        time.sleep(1)


def runs() -> int:
    """How many times the service ran in this boot."""
    return int(on(HOST, f"journalctl -b -q --no-pager -u {SERVICE} | grep -c 'Finished' || true"))


def shown(unit: str, *names: str) -> list[int]:
    """Return numbers that systemd shows of a unit; points in time are in microseconds since the boot."""
    shown = on(HOST, f"systemctl show {unit} " + " ".join(f"--property={name}" for name in names))
    values = dict(line.split("=", 1) for line in shown.split())
    return [int(values[name]) for name in names]


def settled() -> None:
    busy = f"systemctl is-active -q {SERVICE} || ls -A /run/noiommu-hotplug | grep -q ."
    on(HOST, f"udevadm settle; while {busy}; do sleep 1; done")


@pytest.mark.parametrize("address", DECLARED)
def test_a_device_that_is_removed_and_found_again(address: str) -> None:
    cycle(address)
    assert drivers_within(WITHIN, address) == ["vfio-pci"]


def test_all_at_once_are_one_run() -> None:
    settled()
    before = runs()
    cycle(*DECLARED)
    assert drivers_within(WITHIN, *DECLARED) == ["vfio-pci"] * 3
    settled()
    assert runs() - before == 1


def test_how_long_that_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Print the time, and what of it is ours: the rest is udev, systemd and the start of Python."""
    settled()
    cycle(FIRST)
    assert drivers_within(WITHIN, FIRST) == ["vfio-pci"]
    settled()
    kernel = on(HOST, f"journalctl -b -k -q --no-pager -o short-monotonic | grep 'pci {FIRST}: ' | grep -v vfio-pci")
    # The last time that it was found; its first line names vendor and device.
    found = max(
        float(line.split("]")[0].strip("[ ")) for line in kernel.splitlines() if re.search(r"\[\w+:\w+\] type", line)
    )
    start, end = (
        point / 1e6 for point in shown(SERVICE, "ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic")
    )
    clock = "date +%s.%N"
    before, after = on(HOST, f"{clock}; /usr/bin/python3 -I -c pass; {clock}").split()
    python = float(after) - float(before)
    with capsys.disabled():
        print(
            f"\nfrom the kernel's finding a device to its being bound: {end - found:.2f} s;"
            f" until our service starts {start - found:.2f}, Python alone {python:.2f}, ours {end - start - python:.2f}"
        )
    assert found < start < end


def test_the_hosts_own_of_the_same_kind_stays() -> None:
    cycle(HOSTS)
    settled()
    assert driver(HOSTS) == "e1000e"


def test_what_is_bound_by_hand_stays() -> None:
    by_hand = (
        f"echo {SECOND} > /sys/bus/pci/drivers/vfio-pci/unbind; echo > /sys/bus/pci/devices/{SECOND}/driver_override;"
        f" echo {SECOND} > /sys/bus/pci/drivers/virtio-pci/bind"
    )
    on(HOST, by_hand)
    cycle(FIRST)
    assert drivers_within(WITHIN, FIRST) == ["vfio-pci"]
    settled()
    assert driver(SECOND) == "virtio-pci"
    cycle(SECOND)
    assert drivers_within(WITHIN, SECOND) == ["vfio-pci"]


def test_what_is_deployed_is_unchanged() -> None:
    assert on(HOST, "noiommu-verify").startswith("OK: ")
