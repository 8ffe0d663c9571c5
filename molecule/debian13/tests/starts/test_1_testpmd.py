# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The distribution's dpdk-testpmd (24.11) chooses physical addresses by itself, however it is started."""

from __future__ import annotations

import time

import pytest
from live import RUN, nics, on
from traffic import STARTS, Testpmd, devices_of

HOST = "delta"


def test_the_processor_says_what_is_tested():
    assert on(HOST, "grep -m1 vendor_id /proc/cpuinfo").split()[-1] == "GenuineIntel"


@pytest.mark.parametrize("start", STARTS)
def test_packets_circulate(start, capsys):
    testpmd = Testpmd(str(RUN / "ssh_config"), HOST, devices_of(start, nics(HOST)), "io --tx-first")
    time.sleep(5)
    counted = testpmd.finish()
    with capsys.disabled():
        print(f"\n{start}: {counted}")
    assert "Selected IOVA mode 'PA'" in testpmd.output, testpmd.output
    assert min(counted.values()) > 100, testpmd.output
