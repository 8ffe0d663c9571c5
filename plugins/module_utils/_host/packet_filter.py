# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Classic BPF: run a packet filter on sample frames to see whether it accepts ordinary traffic."""

from __future__ import annotations

import struct

# An Ethernet frame to this host each: TCP over IPv4 and over IPv6, from port 49152 to port 22.
_ETHERNET = bytes.fromhex("020000000001020000000002")
_TCP = struct.pack(">HHIIHHHH", 49152, 22, 1, 1, 0x5010, 512, 0, 0) + bytes(64)
_FRAMES = (
    (0x0800, bytes.fromhex("4500007c000040004006b7e0c0000202c0000201") + _TCP),
    (0x86DD, bytes.fromhex("6000000000640640") + bytes([0x20, 1, 0xD, 0xB8] * 8) + _TCP),
)
_LOAD, _LOADX, _STORE, _STOREX, _ALU, _JUMP, _RETURN, _MISC = range(8)
# Loads beyond this offset are of what the kernel knows of the packet: protocol, type (0: to this host), interface.
_ANCILLARY = 0xFFFFF000
_PROTOCOL = 0


def accepts_traffic(code: bytes) -> bool:
    """Whether a filter accepts ordinary packets to the host. One that cannot be run here counts as accepting."""
    program = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code) - 7, 8)]
    try:
        return any(_run(program, _ETHERNET + struct.pack(">H", kind) + payload, kind) > 0 for kind, payload in _FRAMES)
    except _UnknownInstructionError:
        return True


class _UnknownInstructionError(Exception):
    """Something that this interpreter does not know."""


def _run(program: list[tuple[int, int, int, int]], frame: bytes, protocol: int) -> int:
    """Return how much of a frame a program lets pass."""
    at = accumulator = index = 0
    memory = [0] * 16
    while at < len(program):
        code, jump_true, jump_false, constant = program[at]
        at += 1
        kind, operand = code & 7, index if code & 8 else constant
        if kind == _RETURN:
            return accumulator if code & 0x18 == 0x10 else constant
        if kind in (_LOAD, _LOADX):
            value = _load(code, constant, index, frame, protocol, memory)
            if value is None:  # beyond the end of the packet
                return 0
            accumulator, index = (value, index) if kind == _LOAD else (accumulator, value)
        elif kind in (_STORE, _STOREX):
            memory[constant & 15] = accumulator if kind == _STORE else index
        elif kind == _ALU:
            accumulator = _compute(code & 0xF0, accumulator, operand)
        elif kind == _JUMP:
            at += (
                constant
                if code & 0xF0 == 0
                else jump_true
                if _is_met(code & 0xF0, accumulator, operand)
                else jump_false
            )
        elif code & 0xF8:
            accumulator = index
        else:
            index = accumulator
    raise _UnknownInstructionError


def _load(code: int, constant: int, index: int, frame: bytes, protocol: int, memory: list[int]) -> int | None:
    mode, size = code & 0xE0, {0x00: 4, 0x08: 2, 0x10: 1}.get(code & 0x18, 0)
    if mode == 0x00:
        return constant
    if mode == 0x60:
        return memory[constant & 15]
    if mode == 0x80:
        return len(frame)
    if constant >= _ANCILLARY:
        return protocol if constant == _ANCILLARY + _PROTOCOL else 0
    if mode == 0xA0:  # four times the low half of a byte: the length of an IPv4 header
        return 4 * (frame[constant] & 15) if constant < len(frame) else None
    start = constant + (index if mode == 0x40 else 0)
    if mode not in (0x20, 0x40) or not size:
        raise _UnknownInstructionError
    return int.from_bytes(frame[start : start + size], "big") if start + size <= len(frame) else None


def _compute(operation: int, left: int, right: int) -> int:
    if operation in (0x30, 0x90) and right == 0:
        return 0
    operations = {
        0x00: lambda: left + right,
        0x10: lambda: left - right,
        0x20: lambda: left * right,
        0x30: lambda: left // right,
        0x40: lambda: left | right,
        0x50: lambda: left & right,
        0x60: lambda: left << (right & 31),
        0x70: lambda: left >> (right & 31),
        0x80: lambda: -left,
        0x90: lambda: left % right,
        0xA0: lambda: left ^ right,
    }
    if operation not in operations:
        raise _UnknownInstructionError
    return operations[operation]() & 0xFFFFFFFF


def _is_met(condition: int, left: int, right: int) -> bool:
    conditions = {0x10: left == right, 0x20: left > right, 0x30: left >= right, 0x40: bool(left & right)}
    if condition not in conditions:
        raise _UnknownInstructionError
    return conditions[condition]
