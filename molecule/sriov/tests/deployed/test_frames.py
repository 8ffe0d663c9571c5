# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is set of the virtual functions does what it says, with frames between those that the host kept.

They pass through the switch in the card. The one that QEMU emulates knows VLANs and addresses. It does not drop a frame
with a false source address, whatever its driver asks it for: what an untrusted function cannot do here is to take the
address of another.
"""

from __future__ import annotations

import pytest
from live import broken, connect, on, run_python
from virtual_functions import HOST, LEFT, MAC, function, interface, mac_of

# Nobody has it. Those that send and receive it are in one VLAN.
FOREIGN = "52:54:00:0f:02:00"
UNTRUSTED, TRUSTED, UNTAGGED = LEFT
# An emulated processor is slow: what passes is awaited long; what does not, as long as others took ten times.
PASSES, NEVER = 120, 20


@pytest.fixture(scope="module")
def names():
    """The interfaces by the index of their function, up and with a link."""
    found = {index: interface(function(index)) for index in LEFT}
    up, down = ("; ".join(f"ip link set dev {name} {state}" for name in found.values()) for state in ("up", "down"))
    with broken(HOST, up, down):
        for name in (interface(), *found.values()):
            on(HOST, f"timeout 300 sh -c 'until [ \"$(cat /sys/class/net/{name}/carrier)\" = 1 ]; do sleep 1; done'")
        yield found


def arrives(sender: str, source: str, receiver: str, destination: str, seconds: int) -> bool:
    return run_python(HOST, "frames.py", sender, source, receiver, destination, str(seconds))["arrived"]


def test_frames_pass_within_a_vlan(names):
    assert arrives(names[UNTRUSTED], mac_of(UNTRUSTED), names[TRUSTED], mac_of(TRUSTED), PASSES)


def test_frames_pass_where_there_is_no_vlan(names):
    assert arrives(names[UNTAGGED], mac_of(UNTAGGED), interface(), MAC, PASSES)


def test_frames_do_not_leave_their_vlan(names):
    assert not arrives(names[UNTRUSTED], mac_of(UNTRUSTED), interface(), MAC, NEVER)


def test_frames_do_not_enter_a_vlan(names):
    assert not arrives(names[UNTAGGED], mac_of(UNTAGGED), names[TRUSTED], mac_of(TRUSTED), NEVER)


def test_a_false_source_passes_where_it_is_not_checked(names):
    assert arrives(names[TRUSTED], FOREIGN, names[UNTRUSTED], mac_of(UNTRUSTED), PASSES)


def test_a_function_that_is_not_trusted_gets_nothing_for_another_address(names):
    done = connect(HOST).run(f"ip link set dev {names[UNTRUSTED]} address {FOREIGN}")
    assert done.rc != 0 and "Cannot assign requested address" in done.stderr
    assert not arrives(names[TRUSTED], mac_of(TRUSTED), names[UNTRUSTED], FOREIGN, NEVER)
    assert arrives(names[TRUSTED], mac_of(TRUSTED), names[UNTRUSTED], mac_of(UNTRUSTED), PASSES)


def test_a_trusted_one_gets_it_and_verify_says_so(names):
    set_address = f"ip link set dev {names[TRUSTED]} address "
    with broken(HOST, set_address + FOREIGN, set_address + mac_of(TRUSTED)):
        assert arrives(names[UNTRUSTED], mac_of(UNTRUSTED), names[TRUSTED], FOREIGN, PASSES)
        done = connect(HOST).run("noiommu-verify")
        drift = f"virtual function {TRUSTED} has mac {FOREIGN} instead of mac {mac_of(TRUSTED)}"
        assert done.rc == 1 and drift in done.stdout, done.stdout
    assert connect(HOST).run("noiommu-verify").rc == 0
