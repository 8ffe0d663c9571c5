# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BPF programs on an interface that only bpf(2) shows: tcx, since Linux 6.6."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Iterable

from .._base.errors import HostError

_CALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
_PROG_QUERY = 16
_HOOKS = {46: "tcx/ingress", 47: "tcx/egress"}
_MOST = 64
# union bpf_attr, the part for queries: ifindex, type, two kinds of flags, ids, how many.
_QUERY, _COUNT = "=IIIIQI4x", 24
# Kernels write more than this (the revision, at 56) whatever size they are given.
_ATTRIBUTES = 256


def tcx_programs(ifindexes: Iterable[int]) -> dict[int, list[str]]:
    """Return the programs that see the packets of interfaces before the host does, by the interface's index."""
    found: dict[int, list[str]] = {}
    for ifindex in ifindexes:
        for hook, name in _HOOKS.items():
            for program in _query(ifindex, hook):
                found.setdefault(ifindex, []).append("BPF program %d at %s" % (program, name))
    return found


def _query(ifindex: int, hook: int) -> list[int]:
    ids = (ctypes.c_uint32 * _MOST)()
    request = struct.pack(_QUERY, ifindex, hook, 0, 0, ctypes.addressof(ids), _MOST)
    try:
        answer = call(_PROG_QUERY, request)
    except OSError as exc:
        # No bpf(2) at all, or no such hook before Linux 6.6, or none used so far, or the interface is gone.
        if exc.errno in (errno.ENOSYS, errno.EINVAL, errno.ENOENT, errno.ENODEV) or os.geteuid() != 0:
            return []
        raise unreadable("bpf(BPF_PROG_QUERY) for interface %d" % ifindex, exc) from exc
    return list(ids[: struct.unpack_from("=I", answer, _COUNT)[0]])


def call(command: int, request: bytes) -> bytes:
    """Call bpf(2); return the attributes as the kernel leaves them."""
    return _call(command, request)[1]


def opened(command: int, request: bytes) -> int:
    """Call bpf(2); return the descriptor that it opens."""
    return _call(command, request)[0]


def _call(command: int, request: bytes) -> tuple[int, bytes]:
    number = _CALLS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    answer = ctypes.create_string_buffer(request, _ATTRIBUTES)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, command, answer, len(request))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result, answer.raw


def unreadable(what: str, exc: OSError) -> HostError:
    """Return the error for what root cannot read."""
    return HostError(
        "unreadable",
        "Cannot tell which BPF programs are on this host's interfaces: %s." % exc.strerror,
        evidence=["%s: %s" % (what, exc.strerror)],
        remedy="Run as root on the host itself, not in a container or a sandbox.",
        errno=exc.errno,
    )
