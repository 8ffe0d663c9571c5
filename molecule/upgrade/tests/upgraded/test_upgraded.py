# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A newer kernel arrives, and the build of the module for it fails."""

from __future__ import annotations

from live import nics, on, playbook
from upgrading import HOST, OVERRIDE, apt, newest

CAUSE = "noiommu.c:1:1: error: broken on purpose"


def test_the_newer_kernel_is_installed():
    on(
        HOST,
        "sed -n 's/bookworm-updates/bookworm-backports/p' /etc/apt/sources.list"
        " > /etc/apt/sources.list.d/backports.list",
    )
    apt("update")
    apt("install -t bookworm-backports linux-image-cloud-amd64")
    assert newest() != on(HOST, "uname -r").strip()


def test_its_headers_come_and_dkms_fails_to_build():
    kernel = newest()
    on(
        HOST,
        f"mkdir -p /etc/dkms && cat > {OVERRIDE.format(kernel=kernel)}",
        stdin=f"MAKE[0]=\"sh -c 'echo {CAUSE}; false'\"\n",
    )
    said = apt(f"install -t bookworm-backports linux-headers-{kernel}", fails=True)
    assert "noiommu" in said, said


def test_verify_shows_what_dkms_met():
    done = playbook("verify", HOST)
    assert done.returncode != 0 and newest() in done.stdout and CAUSE in done.stdout, done.stdout


def test_a_deploy_reports_it_and_goes_on():
    done = playbook("deploy", HOST)
    assert done.returncode == 0 and CAUSE in done.stdout and newest() in done.stdout, done.stdout
    assert "changed=0" in done.stdout, done.stdout


def test_so_does_the_next_verify():
    done = playbook("verify", HOST)
    assert done.returncode != 0
    assert f"drifted: kernel module: no module for the kernel {newest()}: " in done.stdout, done.stdout
    assert CAUSE in done.stdout, done.stdout


def test_the_running_kernel_is_served_all_along():
    for nic in nics(HOST):
        assert on(HOST, f"readlink /sys/bus/pci/devices/{nic}/driver").strip().endswith("/vfio-pci")
