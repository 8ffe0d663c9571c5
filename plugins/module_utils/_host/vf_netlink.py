# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a physical function's driver keeps of each virtual one, as rtnetlink's messages have it: IFLA_VFINFO_LIST.

The layout is that of linux/if_link.h. The kernel reads and sets it through the interface of the physical function.
"""

from __future__ import annotations

import struct
from typing import Any

from .._base.errors import HostError, errno_text
from .._base.fs import Root
from . import netlink
from .netlink import attribute, attributes_of, each_attribute
from .virtual_functions import LINK_STATES, PROTOCOLS

_RTM_NEWLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 18, 19
_NLM_F_ACK = 0x4
_IFLA_VFINFO_LIST, _IFLA_EXT_MASK = 22, 29
# Without the counters the list of 256 functions fits into one attribute.
_RTEXT_FILTER_VF, _RTEXT_FILTER_SKIP_STATS = 1, 8
_IFLA_VF_INFO, _IFLA_VF_VLAN_INFO = 1, 1
_IFLA_VF_MAC, _IFLA_VF_SPOOFCHK, _IFLA_VF_LINK_STATE = 1, 4, 5
_IFLA_VF_RATE, _IFLA_VF_TRUST, _IFLA_VF_VLAN_LIST = 6, 9, 12
_MAC_FIELD, _MAC_LENGTH = 32, 6  # MAX_ADDR_LEN, of which Ethernet uses so much
_NOT_KNOWN = 0xFFFFFFFF  # what the kernel presets where a driver says nothing


def read(root: Root, ifindex: int) -> dict[int, dict[str, Any]]:
    """Return the settings of each virtual function; None stands for one that the driver does not tell."""
    mask = attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_VF | _RTEXT_FILTER_SKIP_STATS))
    try:
        return parse(_ask(root, _RTM_GETLINK, 0, _header(ifindex) + mask))
    except OSError as exc:
        raise HostError(
            "netlink",
            "The settings of virtual functions could not be read: %s." % errno_text(exc),
            evidence=["rtnetlink, RTM_GETLINK of interface %d: %s" % (ifindex, exc)],
            remedy="Run as root on the host itself, and outside of sandboxes that filter AF_NETLINK.",
            errno=exc.errno,
        ) from exc


def write(root: Root, ifindex: int, function: int, settings: dict[str, Any]) -> None:
    """Set one group of settings of one virtual function. Raise OSError with the driver's reason."""
    _ask(root, _RTM_SETLINK, _NLM_F_ACK, _header(ifindex) + encode(function, settings))


def _ask(root: Root, kind: int, flags: int, body: bytes) -> bytes:
    # The links of this machine are none of those in a tree.
    return netlink.exchange(kind, flags, body) if root.is_live else b""


def _header(ifindex: int) -> bytes:
    return struct.pack("=BxHiII", 0, 0, ifindex, 0, 0)


def parse(data: bytes) -> dict[int, dict[str, Any]]:
    """Parse the answer to RTM_GETLINK."""
    found = {}
    for message in netlink.messages(data, _RTM_NEWLINK, 16):
        functions = attributes_of(message[16:]).get(_IFLA_VFINFO_LIST, memoryview(b""))
        for kind, payload in each_attribute(functions):
            about = attributes_of(payload)
            if kind == _IFLA_VF_INFO and _IFLA_VF_MAC in about:
                found[_words(about[_IFLA_VF_MAC], 1)[0]] = _settings(about)
    return found


def _settings(about: dict[int, memoryview]) -> dict[str, Any]:
    vlan = attributes_of(about[_IFLA_VF_VLAN_LIST])[_IFLA_VF_VLAN_INFO]
    _function, vid, qos = _words(vlan, 3)
    protocol = struct.unpack_from(">H", vlan, 12)[0]
    names = {number: name for name, number in PROTOCOLS.items()}
    _function, min_tx_rate, max_tx_rate = _words(about[_IFLA_VF_RATE], 3)
    state = _words(about[_IFLA_VF_LINK_STATE], 2)[1]
    return {
        "mac": ":".join("%02x" % byte for byte in about[_IFLA_VF_MAC][4 : 4 + _MAC_LENGTH]),
        "vlan": vid,
        "qos": qos,
        # Without a tag there is no protocol, whatever the driver keeps.
        "vlan_protocol": names.get(protocol, "0x%04x" % protocol) if vid or qos else "802.1Q",
        "trust": _flag(about, _IFLA_VF_TRUST),
        "spoof_check": _flag(about, _IFLA_VF_SPOOFCHK),
        "min_tx_rate": min_tx_rate,
        "max_tx_rate": max_tx_rate,
        "link_state": LINK_STATES[state] if state < len(LINK_STATES) else str(state),
    }


def _words(raw: memoryview, number: int) -> tuple[int, ...]:
    return struct.unpack_from("=%dI" % number, raw)


def _flag(about: dict[int, memoryview], kind: int) -> bool | None:
    value = _words(about[kind], 2)[1] if kind in about else _NOT_KNOWN
    return None if value == _NOT_KNOWN else bool(value)


def encode(function: int, settings: dict[str, Any]) -> bytes:
    """Return the attribute that sets one group of settings."""
    kind, value = _encoded(function, settings)
    return attribute(_IFLA_VFINFO_LIST, attribute(_IFLA_VF_INFO, attribute(kind, value)))


def _encoded(function: int, settings: dict[str, Any]) -> tuple[int, bytes]:
    if "mac" in settings:
        mac = bytes.fromhex(settings["mac"].replace(":", ""))
        return _IFLA_VF_MAC, struct.pack("=I", function) + mac.ljust(_MAC_FIELD, b"\0")
    if "vlan" in settings:
        tag = struct.pack("=III", function, settings["vlan"], settings["qos"])
        protocol = struct.pack(">H2x", PROTOCOLS[settings["vlan_protocol"]])
        return _IFLA_VF_VLAN_LIST, attribute(_IFLA_VF_VLAN_INFO, tag + protocol)
    if "max_tx_rate" in settings:
        return _IFLA_VF_RATE, struct.pack("=III", function, settings["min_tx_rate"], settings["max_tx_rate"])
    if "link_state" in settings:
        return _IFLA_VF_LINK_STATE, struct.pack("=II", function, LINK_STATES.index(settings["link_state"]))
    kind = _IFLA_VF_TRUST if "trust" in settings else _IFLA_VF_SPOOFCHK
    return kind, struct.pack("=II", function, settings["trust" if "trust" in settings else "spoof_check"])
