# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One device of the list fails, or the run is told to end, or is killed: the host is exactly as it was, at once or by
the next run."""

from __future__ import annotations

import subprocess

import pytest
from live import REPOSITORY, RUN, broken, changes_since_baseline, nics, on, playbook

HOST = "golf"
DISK = "0000:00:1b.0"


def declared() -> list[str]:
    return [*nics(HOST), DISK]


def sudden(signal: str) -> subprocess.CompletedProcess:
    """Deploy, and have the module on the host get a signal when it has bound a device but not all."""
    source = (REPOSITORY / "tests/clients/signal_midway.py").read_text(encoding="utf-8")
    sender = subprocess.Popen(
        ["ssh", "-F", str(RUN / "ssh_config"), HOST, " ".join(["python3 -", signal, *declared()])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    sender.stdin.write(source)
    sender.stdin.close()
    done = playbook("deploy", HOST, ansible_pipelining=False)
    said = sender.stdout.read()
    assert sender.wait(timeout=600) == 0, said
    return done


def test_one_device_fails_and_all_are_put_back():
    """Its driver_override cannot be written: a real error of a real kernel, while others are bound."""
    override = f"$(readlink -f /sys/bus/pci/devices/{DISK})/driver_override"
    with broken(
        HOST, f"mount --bind {override} {override} && mount -o remount,bind,ro {override}", f"umount {override}"
    ):
        done = playbook("deploy", HOST)
        assert done.returncode != 0 and "everything done before was put back" in done.stdout, done.stdout
        assert DISK in done.stdout and "EROFS" in done.stdout, done.stdout
    assert changes_since_baseline(HOST) == []


@pytest.mark.parametrize("signal", ("TERM", "INT"))
def test_a_signal_in_the_middle_puts_all_back(signal):
    done = sudden(signal)
    assert done.returncode != 0 and "ended this run before it was done" in done.stdout, done.stdout
    assert changes_since_baseline(HOST) == []


def test_after_a_kill_in_the_middle_the_rollback_undoes_what_was_done():
    assert sudden("KILL").returncode != 0
    assert on(HOST, "ls /sys/bus/pci/drivers/vfio-pci").count("0000:") > 0
    done = playbook("rollback", HOST)
    assert done.returncode == 0, done.stdout
    assert changes_since_baseline(HOST) == []


def test_after_a_kill_in_the_middle_the_next_run_finishes():
    """What it comes to is the next stage's."""
    assert sudden("KILL").returncode != 0
