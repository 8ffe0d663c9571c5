# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host is what the scenario says."""

from __future__ import annotations

from live import on


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def test_it_is_the_next_release():
    assert on("fifo", ". /etc/os-release; echo $VERSION_CODENAME").strip() == "forky"


def test_it_is_ahead_of_the_release_that_is_supported(capsys):
    kernel, systemd = on("fifo", "uname -r").strip(), on("fifo", "dpkg-query -W -f '${Version}' systemd")
    dpdk = on("fifo", "dpkg-query -W -f '${Version}' dpdk")
    with capsys.disabled():
        print(f"\nfifo: kernel {kernel}, systemd {systemd}, DPDK {dpdk}")
    assert version(kernel) >= (7, 0) and version(dpdk) >= (25, 11)
