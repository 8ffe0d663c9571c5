# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two kernel-driven NICs of a machine whose data ports lead to them: what goes in at one comes out of the other
only if somebody forwards between the data ports."""

from __future__ import annotations

import contextlib
import re

from live import connect, on

# Namespace, the NIC that the kernel keeps, address.
ENDS = (("left", "0000:00:12.0", "192.0.2.1"), ("right", "0000:00:13.0", "192.0.2.2"))


@contextlib.contextmanager
def ends(host: str):
    """Put each end into a network namespace of its own, so that the kernel has no shorter way between them."""
    for name, nic, address in ENDS:
        # A NIC that was in a namespace before takes a moment to come back.
        on(
            host,
            f"ip netns add {name}"
            f" && timeout 30 sh -c 'until ls /sys/bus/pci/devices/{nic}/virtio*/net; do sleep 1; done'"
            f" && ip link set $(ls /sys/bus/pci/devices/{nic}/virtio*/net) netns {name}"
            f" && ip -n {name} addr add {address}/24 dev $(ip netns exec {name} ls /sys/class/net | grep -v lo)"
            f" && ip -n {name} link set $(ip netns exec {name} ls /sys/class/net | grep -v lo) up",
        )
    try:
        yield
    finally:
        for name, _nic, _address in ENDS:
            # The NIC comes back to the first namespace.
            on(host, f"ip netns del {name}")


def ping(host: str, count: int) -> int:
    """Send packets from the left end to the right one, each after the answer to the one before, since an emulated
    machine can be slow; return how many were answered, after the first, which waits for the forwarder."""
    target = ENDS[1][2]
    done = connect(host).run(
        f"ip netns exec left ping -q -c 1 -w 120 {target} >&2"
        f" && ip netns exec left ping -q -A -c {count} -w 240 {target}"
    )
    received = re.search(r"(\d+) received", done.stdout)
    return int(received[1]) if received else 0
