# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof: the distribution's unmodified dpdk-testpmd carries packets through the bound NICs."""

from __future__ import annotations

import pytest
from live import RUN, connect
from traffic import Testpmd, carry

SSH_CONFIG = str(RUN / "ssh_config")
E1000E, VIRTIO = "0000:00:10.0", "0000:00:11.0"


@pytest.mark.parametrize("nic", (E1000E, VIRTIO))
def test_packets_cross(nic, capsys):
    sent, arrived = carry(SSH_CONFIG, "alpha", "bravo", [nic], seconds=10)
    with capsys.disabled():
        print(f"\nalpha {nic} sent {sent}, bravo received {arrived}")
    assert 0 < arrived <= sent


def test_dpdk_without_any_option():
    """Neither -a nor an IOVA mode: DPDK then asks the host's first PCI device, a bridge, which addresses it may use."""
    testpmd = Testpmd(SSH_CONFIG, "alpha", [], "txonly")
    sent = testpmd.finish()["tx"]
    assert "Selected IOVA mode 'PA'" in testpmd.output and "Port 1" in testpmd.output, testpmd.output
    assert sent > 0, testpmd.output


def test_the_secure_host_runs_it_untainted():
    testpmd = Testpmd(SSH_CONFIG, "secure", [E1000E, VIRTIO], "txonly")
    testpmd.finish()
    assert "Selected IOVA mode 'VA'" in testpmd.output
    assert connect("secure").file("/proc/sys/kernel/tainted").content_string.strip() == "0"
