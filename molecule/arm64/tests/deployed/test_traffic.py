# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unmodified dpdk-testpmd carries packets. DPDK has no hint to follow on this architecture, so it is told its mode."""

from __future__ import annotations

import pytest
from live import RUN, connect, nics
from traffic import Testpmd, carry

SSH_CONFIG = str(RUN / "ssh_config")


@pytest.mark.parametrize("index", (0, 1), ids=("e1000e", "virtio"))
def test_packets_cross(index, capsys):
    nic = nics("alpha")[index]
    sent, arrived = carry(SSH_CONFIG, "alpha", "bravo", [nic], seconds=10, eal="--iova-mode=pa")
    with capsys.disabled():
        print(f"\nalpha {nic} sent {sent}, bravo received {arrived}")
    assert 0 < arrived <= sent


def test_the_secure_host_chooses_by_itself_and_is_untainted():
    testpmd = Testpmd(SSH_CONFIG, "secure", nics("secure"), "txonly")
    testpmd.finish()
    assert "Selected IOVA mode 'VA'" in testpmd.output
    assert connect("secure").file("/proc/sys/kernel/tainted").content_string.strip() == "0"
