# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""bpf(2), asked for programs at an interface's hooks."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import bpf


class FakeLibc:
    """Answers as a kernel of 6.6 and later does; ``code`` is the errno of its failure."""

    def __init__(self, programs: list[int], code: int = 0) -> None:
        self.programs, self.code = programs, code

    def syscall(self, _number: int, _command: int, answer: ctypes.Array[ctypes.c_char], size: int) -> int:
        assert size <= 32
        if self.code:
            ctypes.set_errno(self.code)
            return -1
        _ifindex, hook, _flags, _attached, address, most = struct.unpack_from("=IIIIQI", answer)
        programs = self.programs if hook == 46 else []
        assert most >= len(programs)
        (ctypes.c_uint32 * most).from_address(address)[: len(programs)] = programs
        struct.pack_into("=I", answer, 24, len(programs))
        struct.pack_into("=Q", answer, 56, 7)  # the revision, beyond the size that it was told: seen on Linux 6.18
        return 0


def test_the_programs_at_both_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_options: FakeLibc([7, 9]))
    assert bpf.tcx_programs([2]) == {2: ["BPF program 7 at tcx/ingress", "BPF program 9 at tcx/ingress"]}
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_options: FakeLibc([]))
    assert bpf.tcx_programs([2, 3]) == {}


@pytest.mark.parametrize("code,absent", [(errno.EINVAL, True), (errno.ENODEV, True), (errno.EPERM, False)])
def test_only_a_kernel_without_such_hooks_has_none(monkeypatch: pytest.MonkeyPatch, code: int, absent: bool) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_options: FakeLibc([], code))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if absent:
        assert bpf.tcx_programs([2]) == {}
    else:
        with pytest.raises(HostError, match=os.strerror(code)):
            bpf.tcx_programs([2])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bpf.tcx_programs([2]) == {}
