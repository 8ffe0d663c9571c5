# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traffic control (tc): filters on an interface, and redirections to it from another one."""

from __future__ import annotations

import errno
import struct

from .netlink import attributes_of, dump, messages, text_of

_RTM_NEWQDISC, _RTM_GETQDISC, _RTM_GETACTION = 36, 38, 50
_TCA_KIND, _TCA_OPTIONS = 1, 2
_ROOT_TAB, _MIRRED_PARMS = 1, 2
_ABSENT = (errno.EOPNOTSUPP,)  # a kernel without traffic control
# The filters below these see packets before the host does.
_HOOKS = ("ingress", "clsact")
_ACTIONS = {1: "redirects", 2: "copies", 3: "redirects", 4: "copies"}


def read_traffic_control() -> dict[int, list[str]]:
    """Read from the running kernel what affects each interface, by index."""
    found = parse_hooks(dump(_RTM_GETQDISC, struct.pack("=BxHiIII", 0, 0, 0, 0, 0, 0), _ABSENT))
    kind = b"mirred\0"
    nested = struct.pack("=HH", 4 + len(kind), _TCA_KIND) + kind + bytes(-len(kind) % 4)
    nested = struct.pack("=HH", 4 + len(nested), 1) + nested
    request = struct.pack("=BxH", 0, 0) + struct.pack("=HH", 4 + len(nested), _ROOT_TAB) + nested
    for ifindex, lines in parse_redirections(dump(_RTM_GETACTION, request, _ABSENT)).items():
        found.setdefault(ifindex, []).extend(lines)
    return found


def parse_hooks(data: bytes) -> dict[int, list[str]]:
    """Parse an RTM_GETQDISC dump."""
    found: dict[int, list[str]] = {}
    for message in messages(data, _RTM_NEWQDISC, 20):
        kind = text_of(attributes_of(message[20:]), _TCA_KIND)
        if kind in _HOOKS:
            found.setdefault(struct.unpack_from("=i", message, 4)[0], []).append(
                "it has the queueing discipline " + kind
            )
    return found


def parse_redirections(data: bytes) -> dict[int, list[str]]:
    """Parse an RTM_GETACTION dump of the action mirred, wherever its filters are."""
    found: dict[int, list[str]] = {}
    for message in messages(data, _RTM_GETACTION, 4):
        table = attributes_of(attributes_of(message[4:]).get(_ROOT_TAB, memoryview(b"")))
        for action in table.values():
            options = attributes_of(attributes_of(action).get(_TCA_OPTIONS, memoryview(b"")))
            parameters = options.get(_MIRRED_PARMS, memoryview(b""))
            if len(parameters) >= 28:
                number, how, ifindex = (struct.unpack_from("=I", parameters, at)[0] for at in (0, 20, 24))
                what = "mirred action %d %s packets of another interface to it" % (number, _ACTIONS.get(how, "sends"))
                found.setdefault(ifindex, []).append(what)
    return found
