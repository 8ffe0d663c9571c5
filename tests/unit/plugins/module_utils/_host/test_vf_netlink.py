# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of virtual functions against bytes, which are written here field by field from linux/if_link.h."""

from __future__ import annotations

import struct
import sys

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import netlink
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.vf_netlink import encode, parse, read, write
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.virtual_functions import GROUPS

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes below are those of a little-endian host")

# struct nlattr: length with the header, type.
MAC = "2800 0100 02000000 525400aabbcc" + "00" * 26
BROADCAST = "2400 0d00 ffffffffffff" + "00" * 26
VLAN = "1000 0200 02000000 64000000 03000000"
RATE = "1000 0600 02000000 0a000000 e8030000"
TX_RATE = "0c00 0300 02000000 e8030000"
SPOOFCHK = "0c00 0400 02000000 01000000"
LINK_STATE = "0c00 0500 02000000 02000000"
RSS_QUERY = "0c00 0700 02000000 ffffffff"
TRUST = "0c00 0900 02000000 00000000"
VLAN_INFO = "1400 0100 02000000 64000000 03000000 88a8 0000"
VLAN_LIST = "1800 0c00" + VLAN_INFO
SETTINGS = {
    "mac": "52:54:00:aa:bb:cc",
    "vlan": 100,
    "qos": 3,
    "vlan_protocol": "802.1ad",
    "trust": False,
    "spoof_check": True,
    "min_tx_rate": 10,
    "max_tx_rate": 1000,
    "link_state": "disable",
}


def nest(kind: int, payload: bytes) -> bytes:
    return struct.pack("<HH", 4 + len(payload), kind) + payload


def answer(*functions: str) -> bytes:
    """An RTM_NEWLINK message about an interface with a name and these virtual functions."""
    listed = b"".join(nest(1, bytes.fromhex(function)) for function in functions)
    name = "0800 0300 70663000"
    body = struct.pack("<BxHiII", 0, 1, 7, 0x1043, 0) + bytes.fromhex(name) + nest(22, listed)
    return struct.pack("<IHHII", 16 + len(body), 16, 0, 1, 4711) + body


WHOLE = MAC + BROADCAST + VLAN + RATE + TX_RATE + SPOOFCHK + LINK_STATE + RSS_QUERY + TRUST + VLAN_LIST


def test_what_the_kernel_tells() -> None:
    assert parse(answer(WHOLE)) == {2: SETTINGS}


def test_each_function_counts() -> None:
    other = WHOLE.replace("02000000", "05000000").replace("525400aabbcc", "000000000000")
    found = parse(answer(WHOLE, other))
    assert sorted(found) == [2, 5] and found[5]["mac"] == "00:00:00:00:00:00"


def test_what_a_driver_does_not_tell_is_not_known() -> None:
    silent = WHOLE.replace(TRUST, TRUST.replace("00000000", "ffffffff")).replace(
        SPOOFCHK, SPOOFCHK.replace("01000000", "ffffffff")
    )
    found = parse(answer(silent))[2]
    assert found["trust"] is None and found["spoof_check"] is None


def test_without_a_tag_there_is_no_protocol() -> None:
    untagged = WHOLE.replace(VLAN_INFO, VLAN_INFO.replace("64000000 03000000", "00000000 00000000"))
    assert parse(answer(untagged))[2]["vlan_protocol"] == "802.1Q"


def test_an_interface_without_virtual_functions() -> None:
    assert parse(answer()) == {}


def test_half_an_answer_is_an_error() -> None:
    with pytest.raises(HostError, match="not whole"):
        parse(answer(WHOLE)[:-8])


@pytest.mark.parametrize(
    "group,attribute",
    [
        (("mac",), MAC),
        (("vlan", "qos", "vlan_protocol"), VLAN_LIST),
        (("trust",), TRUST),
        (("spoof_check",), SPOOFCHK),
        (("min_tx_rate", "max_tx_rate"), RATE),
        (("link_state",), LINK_STATE),
    ],
)
def test_what_is_sent(group: tuple[str, ...], attribute: str) -> None:
    wanted = nest(22, nest(1, bytes.fromhex(attribute)))
    assert group in GROUPS and encode(2, {key: SETTINGS[key] for key in group}) == wanted


def test_what_is_sent_is_what_is_read() -> None:
    """The kernel's answer has the attributes of its requests, side by side."""
    inner = b"".join(encode(2, {key: SETTINGS[key] for key in group})[8:] for group in GROUPS)
    assert parse(answer(inner.hex())) == {2: SETTINGS}


def test_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int, str]] = []

    def exchange(kind: int, flags: int, body: bytes) -> bytes:
        sent.append((kind, flags, body.hex()))
        return answer(WHOLE)

    monkeypatch.setattr(netlink, "exchange", exchange)
    monkeypatch.setattr(Root, "is_live", True)
    assert read(Root(), 7) == {2: SETTINGS}
    write(Root(), 7, 2, {"trust": False})
    interface = "00000000 07000000 00000000 00000000"
    ask_mask = "0800 1d00 09000000"  # RTEXT_FILTER_VF, RTEXT_FILTER_SKIP_STATS
    set_trust = "1400 1600 1000 0100" + TRUST
    assert sent == [
        (18, 0, bytes.fromhex(interface + ask_mask).hex()),
        (19, 4, bytes.fromhex(interface + set_trust).hex()),
    ]


def test_a_tree_has_no_kernel_to_ask(tmp_path) -> None:
    assert read(Root(str(tmp_path)), 1) == {}


def test_the_running_kernel_answers_and_refuses() -> None:
    """The loopback interface has no virtual functions, and its driver none of the operations."""
    assert read(Root(), 1) == {}
    with pytest.raises(OSError) as caught:
        write(Root(), 1, 0, {"trust": True})
    assert caught.value.errno in (1, 95)  # EPERM without privileges, EOPNOTSUPP with them
    with pytest.raises(HostError, match="No such device") as gone:
        read(Root(), 2**30)
    assert gone.value.remedy
