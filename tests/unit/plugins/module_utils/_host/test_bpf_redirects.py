# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What BPF programs call, by their code and the kernel's symbols. tests/lockout has them on a real kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import bpf_redirects
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.bpf_redirects import may_redirect, parse_symbols

SYMBOLS = (
    b"ffffffff81000000 T __bpf_call_base\nffffffff81000100 T bpf_redirect\nffffffff81000180 T bpf_redirect_in_name\n"
    b"ffffffff80ffff00 t dev_map_redirect\nffffffff81000200 T bpf_map_lookup\n"
)
HIDDEN = b"0000000000000000 T __bpf_call_base\n0000000000000000 T bpf_redirect\n"
HELPERS = {0x100: False, -0x100: True}


def code(*instructions: tuple[int, int, int]) -> bytes:
    """Code of these operations, registers and values, and the end."""
    return b"".join(struct.pack("=BBhi", one, two, 0, value) for one, two, value in (*instructions, (0x95, 0, 0)))


def test_the_helpers_are_where_instructions_call_them() -> None:
    assert parse_symbols(SYMBOLS) == HELPERS
    assert parse_symbols(HIDDEN) == parse_symbols(b"") == {}


@pytest.mark.parametrize(
    "instructions, has_known_map, expected",
    [
        ([(0xB7, 0, 2)], False, False),
        ([(0x85, 0, 0x100)], False, True),
        ([(0x85, 0, 0x100)], True, True),  # besides what it does with its map
        ([(0x85, 0, 0x200)], False, False),
        ([(0x85, 0x10, 0x100)], False, False),  # a function of its own
        ([(0x85, 0, -0x100)], True, False),
        ([(0x85, 0, -0x100)], False, True),  # by a map that is in another map
        ([(0xB7, 0, 0x100)], False, False),
    ],
)
def test_what_a_program_calls(instructions: list[tuple[int, int, int]], has_known_map: bool, expected: bool) -> None:
    assert may_redirect(code(*instructions), HELPERS, has_known_map) is expected


def test_what_cannot_be_told_may_redirect() -> None:
    assert may_redirect(b"", HELPERS, False)  # its code is not shown
    assert may_redirect(code((0x85, 0, 0)), {}, False) and not may_redirect(code((0xB7, 0, 0)), {}, False)


@pytest.mark.parametrize("code, is_error", [(errno.ENOSYS, False), (errno.EINVAL, False), (errno.EPERM, True)])
def test_only_a_kernel_without_bpf_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, is_error: bool
) -> None:
    class Failing:
        def syscall(self, *_arguments: object) -> int:
            ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_options: Failing())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if is_error:
        with pytest.raises(HostError, match="Cannot tell") as caught:
            bpf_redirects.read_redirects(Root(str(tmp_path)))
        assert caught.value.code == "unreadable"
    else:
        assert bpf_redirects.read_redirects(Root(str(tmp_path))) == ({}, [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bpf_redirects.read_redirects(Root(str(tmp_path))) == ({}, [])
