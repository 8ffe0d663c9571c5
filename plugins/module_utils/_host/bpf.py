# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""BPF programs on an interface that nothing but bpf(2) tells of: tcx, since Linux 6.6."""

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
_QUERY, _COUNT = "=IIIIQI", 24
# Kernels write what else they have to say (the revision is at 56) whatever size they were told.
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
    number = _CALLS.get(os.uname().machine)
    if number is None:
        return []
    ids = (ctypes.c_uint32 * _MOST)()
    request = struct.pack(_QUERY, ifindex, hook, 0, 0, ctypes.addressof(ids), _MOST)
    answer = ctypes.create_string_buffer(request, _ATTRIBUTES)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, _PROG_QUERY, answer, len(request) + 4) < 0:
        code = ctypes.get_errno()
        # No bpf(2) at all, or no such hook before Linux 6.6, or none used so far, or the interface is gone.
        if code in (errno.ENOSYS, errno.EINVAL, errno.ENOENT, errno.ENODEV) or os.geteuid() != 0:
            return []
        raise HostError(
            "unreadable",
            "The BPF programs on this host's interfaces cannot be told: %s." % os.strerror(code),
            evidence=["bpf(BPF_PROG_QUERY) for interface %d: %s" % (ifindex, os.strerror(code))],
            remedy="Run as root on the host itself, not in a container or a sandbox.",
            errno=code,
        )
    return list(ids[: struct.unpack_from("=I", answer, _COUNT)[0]])
