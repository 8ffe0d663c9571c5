# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nftables hooks on interfaces, by name: chains that see packets first, and flowtables that forward them."""

from __future__ import annotations

import errno
import struct

from .._base.fs import Root
from .modules import module_installed, module_loaded
from .netlink import NETFILTER, attributes_of, dump, messages, text_of

_MODULE = "nf_tables"
_SUBSYSTEM = 10 << 8
_NEW_CHAIN, _GET_CHAIN = _SUBSYSTEM | 3, _SUBSYSTEM | 4
_NEW_FLOWTABLE, _GET_FLOWTABLE = _SUBSYSTEM | 22, _SUBSYSTEM | 23
_TABLE, _DEVICE_PREFIX = 1, 2
_CHAIN_NAME, _CHAIN_HOOK, _HOOK_DEVICE, _HOOK_DEVICES = 3, 4, 3, 4
_FLOWTABLE_NAME, _FLOWTABLE_HOOK, _FLOWTABLE_DEVICES = 2, 3, 3
_ABSENT = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)  # a kernel without nftables
_HEADER = 4  # struct nfgenmsg


def read_hooks(root: Root) -> dict[str, list[str]]:
    """Read from the running kernel what is hooked to interfaces, by name; a name that ends with * is a prefix."""
    release = root.must_read("/proc/sys/kernel/osrelease")
    if not module_loaded(root, _MODULE) and module_installed(root, _MODULE, release):
        return {}  # asking would load the module
    request = struct.pack("=BBH", 0, 0, 0)
    found = parse_chains(dump(_GET_CHAIN, request, _ABSENT, NETFILTER))
    for name, lines in parse_flowtables(dump(_GET_FLOWTABLE, request, _ABSENT, NETFILTER)).items():
        found.setdefault(name, []).extend(lines)
    return found


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
