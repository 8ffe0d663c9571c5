# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions that the host made and set up itself: what is declared for them goes back to what it was."""

from __future__ import annotations

import pytest
from live import broken, module, on
from virtual_functions import DIRECTORY, HOST, MAC, function, interface, shown

FIRST, SECOND = "52:54:00:0f:03:00", "52:54:00:0f:03:01"


@pytest.fixture(scope="module")
def before():
    """The host's own virtual functions as it set them up."""
    name = interface()
    numbers = f"{DIRECTORY}/sriov_numvfs"
    with broken(
        HOST,
        f"ip link set dev {name} up && echo 2 > {numbers} && udevadm settle"
        f" && ip link set dev {name} vf 0 mac {FIRST} vlan 7 && ip link set dev {name} vf 1 trust on spoofchk off"
        # The host's driver learns the address when it is bound.
        f" && echo $(basename $(readlink {function(0)})) > /sys/bus/pci/drivers/igbvf/unbind"
        f" && echo $(basename $(readlink {function(0)})) > /sys/bus/pci/drivers/igbvf/bind && udevadm settle",
        f"echo 0 > {numbers}; ip link set dev {name} down",
    ):
        yield shown()


def declare(vfs: int, *functions: dict) -> dict:
    result = module(HOST, "vfio_binding", devices=[], sriov=[{"pf": MAC, "vfs": vfs, "functions": list(functions)}])
    assert result.get("changed") is True, result
    return result


def roll_back() -> dict:
    result = module(HOST, "vfio_binding", state="absent")
    assert result.get("changed") is True and not result.get("warnings"), result
    return result


def address_of_the_first() -> str:
    return on(HOST, f"cat {function(0)}/net/*/address").strip()


def test_without_another_number(before):
    assert address_of_the_first() == FIRST
    declare(2, {"vf": ["0"], "mac": SECOND, "vlan": 8}, {"vf": ["1"], "trust": False})
    found = shown()
    assert f"link/ether {SECOND} " in found[0] and ", vlan 8, " in found[0], found
    assert "spoof checking off" in found[1] and "trust off" in found[1], found
    assert address_of_the_first() == SECOND, "igbvf was bound anew"
    roll_back()
    assert shown() == before and address_of_the_first() == FIRST


def test_with_another_number(before):
    """All are made anew: those that the host had set up are set up as they were, now and after the rollback."""
    declare(3, {"vf": ["2"], "trust": True})
    found = shown()
    assert "trust on" in found.pop(2) and found == before
    roll_back()
    assert shown() == before and address_of_the_first() == FIRST
    assert on(HOST, "ls -d /var/lib/noiommu /etc/noiommu 2>/dev/null; true") == ""
