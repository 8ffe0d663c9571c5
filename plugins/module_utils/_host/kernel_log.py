# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's own messages since boot, as far as its ring buffer still holds them."""

from __future__ import annotations

import errno
import os
import re
from typing import NamedTuple

from .._base.fs import Root

KMSG = "/dev/kmsg"


class LogLine(NamedTuple):
    """One record of the kernel log; time in microseconds since boot."""

    usec: int
    text: str


class KernelLog(NamedTuple):
    """What the kernel log still holds; ``complete`` only if nothing since boot was overwritten."""

    lines: list[LogLine]
    complete: bool
    problem: str | None


# A ring buffer of the largest usual size (log_buf_len=32M) holds fewer records than this.
_MAX_RECORDS = 500_000
_RECORD = re.compile(r"^(\d+),(\d+),(\d+),[^;]*;(.*)$")


def read_log(root: Root) -> KernelLog:
    """Read the records that the kernel log holds now, without waiting for new ones."""
    try:
        handle = os.open(root.path(KMSG), os.O_RDONLY | os.O_NONBLOCK)
    except OSError as exc:
        return KernelLog([], False, "%s: %s" % (KMSG, os.strerror(exc.errno or 0)))
    chunks: list[bytes] = []
    try:
        while len(chunks) < _MAX_RECORDS:
            try:
                chunk = os.read(handle, 65536)
            except OSError as exc:
                if exc.errno == errno.EPIPE:  # The record was overwritten while we read; the next read goes on.
                    continue
                if exc.errno == errno.EAGAIN:
                    break
                return KernelLog([], False, "%s: %s" % (KMSG, os.strerror(exc.errno or 0)))
            if not chunk:
                break
            chunks.append(chunk)
    finally:
        os.close(handle)
    return _parse_log(b"".join(chunks).decode("utf-8", "replace"))


def _parse_log(text: str) -> KernelLog:
    lines: list[LogLine] = []
    sequence: list[int] = []
    for record in text.splitlines():
        match = _RECORD.match(record)
        if match is None:  # A continuation line with the device's properties.
            continue
        sequence.append(int(match.group(2)))
        if int(match.group(1)) < 8:  # The kernel itself; what userspace writes there has another facility.
            lines.append(LogLine(int(match.group(3)), match.group(4)))
    if sequence != list(range(len(sequence))):
        return KernelLog(lines, False, "%s: the oldest records were overwritten" % KMSG)
    return KernelLog(lines, bool(sequence), None if sequence else "%s: no records" % KMSG)
