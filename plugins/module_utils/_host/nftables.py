# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nftables and interfaces: chains that see packets first, flowtables, and rules that send packets out of one."""

from __future__ import annotations

import errno
import struct
import sys
from typing import Iterator, NamedTuple

from .._base.fs import Root
from .modules import module_installed, module_loaded
from .netlink import NETFILTER, attributes_of, dump, each_attribute, messages, text_of

_MODULE = "nf_tables"
_SUBSYSTEM = 10 << 8
_NEW_CHAIN, _GET_CHAIN = _SUBSYSTEM | 3, _SUBSYSTEM | 4
_NEW_FLOWTABLE, _GET_FLOWTABLE = _SUBSYSTEM | 22, _SUBSYSTEM | 23
_NEW_RULE, _GET_RULE = _SUBSYSTEM | 6, _SUBSYSTEM | 7
_TABLE, _DEVICE_PREFIX = 1, 2
_CHAIN_NAME, _CHAIN_HOOK, _HOOK_DEVICE, _HOOK_DEVICES = 3, 4, 3, 4
_FLOWTABLE_NAME, _FLOWTABLE_HOOK, _FLOWTABLE_DEVICES = 2, 3, 3
_RULE_CHAIN, _RULE_EXPRESSIONS, _EXPRESSION_NAME, _EXPRESSION_DATA = 2, 4, 1, 2
_TARGET, _VALUE, _VALUE_ITSELF = 1, 2, 1  # of an immediate: the register, and what is put into it
_SENDERS = {"fwd": 1, "dup": 2}  # with the attribute that names the register of the interface
_FAMILIES = (5, 2, 10)  # netdev, ip and ip6: only they know these
_ABSENT = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)  # a kernel without nftables
_HEADER = 4  # struct nfgenmsg


class Senders(NamedTuple):
    """Rules that send packets out of an interface that is not the packets' own."""

    known: dict[int, list[str]]  # by the index of the interface
    anywhere: list[str]  # which interface it is, a map or the packet says


def read_hooks(root: Root) -> dict[str, list[str]]:
    """Read from the running kernel what is hooked to interfaces, by name; a name that ends with * is a prefix."""
    if _is_unused(root):
        return {}
    request = struct.pack("=BBH", 0, 0, 0)
    found = parse_chains(dump(_GET_CHAIN, request, _ABSENT, NETFILTER))
    for name, lines in parse_flowtables(dump(_GET_FLOWTABLE, request, _ABSENT, NETFILTER)).items():
        found.setdefault(name, []).extend(lines)
    return found


def read_senders(root: Root) -> Senders:
    """Read from the running kernel which rules forward or copy packets to other interfaces."""
    found = Senders({}, [])
    for family in () if _is_unused(root) else _FAMILIES:
        add_senders(found, dump(_GET_RULE, struct.pack("=BBH", family, 0, 0), _ABSENT, NETFILTER))
    return found


def _is_unused(root: Root) -> bool:
    """Whether asking would load the module."""
    release = root.must_read("/proc/sys/kernel/osrelease")
    return not module_loaded(root, _MODULE) and module_installed(root, _MODULE, release)


def add_senders(found: Senders, data: bytes) -> None:
    """Parse a dump of rules."""
    for message in messages(data, _NEW_RULE, _HEADER):
        if not any(name.encode() + b"\0" in bytes(message) for name in _SENDERS):
            continue  # there may be very many rules
        attributes = attributes_of(message[_HEADER:])
        chain = "nftables chain %s of table %s" % (text_of(attributes, _RULE_CHAIN), text_of(attributes, _TABLE))
        for ifindex in _sends_to(attributes.get(_RULE_EXPRESSIONS, memoryview(b""))):
            if ifindex is None:
                found.anywhere.append(chain + " may send packets of other interfaces out of any that is up")
            else:
                found.known.setdefault(ifindex, []).append(chain + " sends packets of other interfaces to it")


def _sends_to(expressions: memoryview) -> Iterator[int | None]:
    """Yield the interfaces that a rule sends to, by index; None for one that is known only when a packet comes."""
    registers: dict[bytes, int] = {}
    for _kind, expression in each_attribute(expressions):
        attributes = attributes_of(expression)
        name = text_of(attributes, _EXPRESSION_NAME) or ""
        data = attributes_of(attributes.get(_EXPRESSION_DATA, memoryview(b"")))
        if name == "immediate":
            value = attributes_of(data.get(_VALUE, memoryview(b""))).get(_VALUE_ITSELF)
            if value is not None:
                registers[bytes(data.get(_TARGET, b""))] = int.from_bytes(value[:4], sys.byteorder)
        elif name in _SENDERS:
            if _SENDERS[name] in data:  # dup can do with an address alone, and follows the host's routes then
                yield registers.get(bytes(data[_SENDERS[name]]))
        else:
            registers.clear()  # it may have loaded any of them


def parse_chains(data: bytes) -> dict[str, list[str]]:
    """Parse a dump of chains; those of ingress and egress name interfaces."""
    found: dict[str, list[str]] = {}
    for message in messages(data, _NEW_CHAIN, _HEADER):
        attributes = attributes_of(message[_HEADER:])
        hook = attributes_of(attributes.get(_CHAIN_HOOK, memoryview(b"")))
        names = [text_of(hook, _HOOK_DEVICE)] if _HOOK_DEVICE in hook else []
        for name in names + _names(hook.get(_HOOK_DEVICES)):
            what = "nftables chain %s of table %s" % (text_of(attributes, _CHAIN_NAME), text_of(attributes, _TABLE))
            found.setdefault(name or "", []).append(what)
    return found


def parse_flowtables(data: bytes) -> dict[str, list[str]]:
    """Parse a dump of flowtables."""
    found: dict[str, list[str]] = {}
    for message in messages(data, _NEW_FLOWTABLE, _HEADER):
        attributes = attributes_of(message[_HEADER:])
        hook = attributes_of(attributes.get(_FLOWTABLE_HOOK, memoryview(b"")))
        for name in _names(hook.get(_FLOWTABLE_DEVICES)):
            table = text_of(attributes, _TABLE)
            what = "nftables flowtable %s of table %s" % (text_of(attributes, _FLOWTABLE_NAME), table)
            found.setdefault(name or "", []).append(what)
    return found


def _names(devices: memoryview | None) -> list[str | None]:
    """Return a list of names: each has the same attribute, so that they cannot be looked up by it."""
    names: list[str | None] = []
    rest = devices or memoryview(b"")
    while len(rest) >= 4:
        size, kind = struct.unpack_from("=HH", rest)
        length = max(size, 4)
        name = bytes(rest[4:length]).rstrip(b"\0").decode("utf-8", "replace")
        names.append(name + "*" if kind & 0x3FFF == _DEVICE_PREFIX else name)
        rest = rest[(length + 3) & ~3 :]
    return names
