# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The distribution's dpdk-testpmd (22.11) chooses physical addresses by itself, however it is started.

It asks the first PCI device of its list which addresses it may use. Without -a that is the host bridge, with -a ours,
and with -a of somebody else's device that one. No start names an IOVA mode. What the processor says must not matter.
"""

from __future__ import annotations

import pytest
from live import RUN, on
from traffic import STARTS, carry, devices_of

SSH_CONFIG = str(RUN / "ssh_config")
OURS = ["0000:00:10.0", "0000:00:11.0"]
VENDORS = {"alpha": "AuthenticAMD", "bravo": "GenuineIntel"}


@pytest.mark.parametrize("name", VENDORS)
def test_the_processor_says_what_is_tested(name):
    assert on(name, "grep -m1 vendor_id /proc/cpuinfo").split()[-1] == VENDORS[name]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("sender,receiver", [("alpha", "bravo"), ("bravo", "alpha")])
def test_packets_cross(sender, receiver, start, capsys):
    outputs: list[str] = []
    sent, arrived = carry(SSH_CONFIG, sender, receiver, devices_of(start, OURS), seconds=5, outputs=outputs)
    with capsys.disabled():
        print(f"\n{start}: {sender} ({VENDORS[sender]}) sent {sent}, {receiver} received {arrived}")
    for output in outputs:
        assert "Selected IOVA mode 'PA'" in output, output
    assert 0 < arrived <= sent
