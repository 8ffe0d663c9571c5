# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BPF programs that can send packets out of another interface than the one they are attached to.

All that are loaded count, wherever they are attached: one may be reached by a tail call or as an extension of another.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from typing import Iterator, NamedTuple

from .._base.fs import Root
from .bpf import call, opened, unreadable

_MAP_LOOKUP, _MAP_NEXT_KEY = 1, 4
_PROG_NEXT_ID, _PROG_OPEN, _MAP_OPEN, _OBJECT_INFO = 11, 13, 14, 15
# Of tc (filter and action), XDP, routes (lwt_xmit), and extensions of others.
_TYPES = (3, 4, 6, 12, 28)
_INTERFACES = (14, 25)  # maps of interfaces: array and hash
_ELSEWHERE = (16, 17)  # maps that the same helpers take: processors, AF_XDP sockets
# struct bpf_prog_info up to the name: type, length of the code, where to put it, maps and how many.
_PROGRAM, _MAP = 80, 40
_CALL, _INSTRUCTION = 0x85, 8
_SYMBOLS = "/proc/kallsyms"
_BASE = b"__bpf_call_base"
# Helpers that are told an interface's index, and those that are given a map: by the name of the symbol.
_BY_INDEX = (b"bpf_redirect", b"bpf_xdp_redirect", b"bpf_clone_redirect", b"bpf_redirect_neigh", b"bpf_redirect_peer")
_BY_MAP = (b"bpf_xdp_redirect_map", b"dev_map_redirect", b"dev_hash_map_redirect", b"dev_map_hash_redirect")


class Redirects(NamedTuple):
    """Where BPF programs send packets."""

    known: dict[int, list[str]]  # by the index of an interface in a map of theirs
    anywhere: list[str]  # of programs that say an index only when a packet comes


class _Program(NamedTuple):
    name: str
    code: bytes
    maps: list[int]


def read_redirects(root: Root) -> Redirects:
    """Ask the running kernel."""
    found = Redirects({}, [])
    helpers: dict[int, bool] | None = None
    try:
        for program in _programs():
            if helpers is None:
                helpers = parse_symbols(root.read_bytes(_SYMBOLS) or b"")
            kinds = [_look_into(program, number, found) for number in program.maps]
            if may_redirect(program.code, helpers, bool({*_INTERFACES, *_ELSEWHERE}.intersection(kinds))):
                found.anywhere.append("%s may send packets of other interfaces out of any that is up" % program.name)
    except OSError as exc:
        # No bpf(2), or none that can list programs (before Linux 4.13).
        if exc.errno in (errno.ENOSYS, errno.EINVAL) or os.geteuid() != 0:
            return found
        raise unreadable("bpf(2), the programs that are loaded", exc) from exc
    return found


def parse_symbols(text: bytes) -> dict[int, bool]:
    """Return the helpers that redirect, as instructions call them, each with whether it is by a map.

    Empty where the kernel hides its addresses.
    """
    pattern = rb"^([0-9a-f]+) \w (%s)$" % b"|".join((_BASE, *_BY_INDEX, *_BY_MAP))
    addresses = {name: int(number, 16) for number, name in re.findall(pattern, text, re.MULTILINE)}
    base = addresses.pop(_BASE, 0)
    if not base or not all(addresses.values()):
        return {}
    return {address - base: name in _BY_MAP for name, address in addresses.items()}


def may_redirect(code: bytes, helpers: dict[int, bool], has_known_map: bool) -> bool:
    """Whether a program calls a helper by which it can name any interface; where that cannot be told, it may."""
    for at in range(0, len(code) - _INSTRUCTION + 1, _INSTRUCTION):
        operation, registers, _offset, value = struct.unpack_from("=BBhi", code, at)
        if operation != _CALL or registers >> 4:  # 1: another part of the program, 2: another function of the kernel
            continue
        if not helpers or (value in helpers and not (helpers[value] and has_known_map)):
            return True
    return not code


def _programs() -> Iterator[_Program]:
    """Yield the programs of the types that can redirect."""
    number = 0
    while True:
        try:
            number = struct.unpack_from("=I", call(_PROG_NEXT_ID, struct.pack("=III", number, 0, 0)), 4)[0]
        except OSError as exc:
            if exc.errno == errno.ENOENT:  # that was the last one
                return
            raise
        try:
            handle = opened(_PROG_OPEN, struct.pack("=III", number, 0, 0))
        except OSError as exc:
            if exc.errno == errno.ENOENT:  # unloaded meanwhile
                continue
            raise
        try:
            about = _about(handle, bytes(_PROGRAM))
            if struct.unpack_from("=I", about)[0] in _TYPES:
                yield _program(handle, number, about)
        finally:
            os.close(handle)


def _program(handle: int, number: int, about: bytes) -> _Program:
    size, count = struct.unpack_from("=I", about, 20)[0], struct.unpack_from("=I", about, 52)[0]
    code, maps = ctypes.create_string_buffer(max(size, 1)), (ctypes.c_uint32 * max(count, 1))()
    request = bytearray(_PROGRAM)
    struct.pack_into("=I", request, 20, size)
    struct.pack_into("=Q", request, 32, ctypes.addressof(code))
    struct.pack_into("=I", request, 52, count)
    struct.pack_into("=Q", request, 56, ctypes.addressof(maps))
    again = _about(handle, bytes(request))
    shown = code.raw[:size] if any(again[32:40]) else b""  # the kernel does not show it
    name = about[64:80].split(b"\0")[0].decode("utf-8", "replace")
    return _Program("BPF program %d (%s)" % (number, name or "no name"), shown, list(maps[:count]))


def _about(handle: int, request: bytes) -> bytes:
    """Ask what an open program or map is."""
    answer = ctypes.create_string_buffer(request, len(request))
    call(_OBJECT_INFO, struct.pack("=IIQ", handle, len(request), ctypes.addressof(answer)))
    return answer.raw


def _look_into(program: _Program, number: int, found: Redirects) -> int:
    """Note the interfaces in a map of a program; return the map's type."""
    try:
        handle = opened(_MAP_OPEN, struct.pack("=III", number, 0, 0))
    except OSError as exc:
        if exc.errno == errno.ENOENT:
            return 0
        raise
    try:
        kind, _id, key_size, value_size = struct.unpack_from("=IIII", _about(handle, bytes(_MAP)))
        if kind in _INTERFACES:
            line = "%s sends packets of other interfaces to it by map %d" % (program.name, number)
            for ifindex in set(_values(handle, key_size, value_size)):
                found.known.setdefault(ifindex, []).append(line)
    finally:
        os.close(handle)
    return int(kind)


def _values(handle: int, key_size: int, value_size: int) -> Iterator[int]:
    """Yield the indexes of interfaces in a map of them."""
    key, value = ctypes.create_string_buffer(key_size), ctypes.create_string_buffer(max(value_size, 4))
    before = 0
    while True:
        try:
            call(_MAP_NEXT_KEY, struct.pack("=IxxxxQQ", handle, before, ctypes.addressof(key)))
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                return
            raise
        before = ctypes.addressof(key)
        try:
            call(_MAP_LOOKUP, struct.pack("=IxxxxQQQ", handle, before, ctypes.addressof(value), 0))
        except OSError as exc:
            if exc.errno == errno.ENOENT:  # an array has all its places
                continue
            raise
        yield struct.unpack_from("=I", value)[0]
