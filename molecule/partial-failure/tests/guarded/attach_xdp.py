# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the host: attach a program that passes every packet to an interface, for as long as this lives."""

import ctypes
import os
import socket
import struct
import sys
import time

SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
BPF_PROG_LOAD, BPF_LINK_CREATE, BPF_PROG_TYPE_XDP, BPF_XDP, XDP_FLAGS_SKB_MODE = 5, 28, 6, 37, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> int:
    handle = LIBC.syscall(SYS_BPF, command, attributes, len(attributes))
    if handle < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return handle


# r0 = XDP_PASS; exit
CODE = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
LICENCE = ctypes.create_string_buffer(b"GPL")
program = bpf(
    BPF_PROG_LOAD, struct.pack("=IIQQ24x", BPF_PROG_TYPE_XDP, 2, ctypes.addressof(CODE), ctypes.addressof(LICENCE))
)
index = socket.if_nametoindex(sys.argv[1])
link = bpf(BPF_LINK_CREATE, struct.pack("=IIII", program, index, BPF_XDP, XDP_FLAGS_SKB_MODE))
time.sleep(3600)
