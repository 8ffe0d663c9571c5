# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof: the distribution's unmodified dpdk-testpmd forwards between the bound NICs of a host, which are wired."""

from __future__ import annotations

import time

import pytest
from live import RUN, connect, hosts, nics
from traffic import Testpmd


@pytest.mark.parametrize("name", hosts())
def test_packets_circulate(name, capsys):
    before = connect(name).file("/proc/sys/kernel/tainted").content_string
    testpmd = Testpmd(str(RUN / "ssh_config"), name, nics(name), "io --tx-first")
    time.sleep(5)
    counted = testpmd.finish()
    with capsys.disabled():
        print(f"\n{name}: {counted}")
    assert min(counted.values()) > 100, testpmd.output
    secure = hosts()[name]["expected_backend"] == "iommu"
    assert f"Selected IOVA mode '{'VA' if secure else 'PA'}'" in testpmd.output
    after = connect(name).file("/proc/sys/kernel/tainted").content_string
    assert after == before if secure else int(after) & 1 << 6
