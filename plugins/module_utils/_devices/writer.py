# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes to the kernel that may never return, and with which no run can end.

So they are made by a helper, which has a thread for each and stays as long as one hangs. It is forked: a program would
cost more than the write to load, and tell no errno. It is forked before the run has threads, which is safe.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import signal
import socket
import struct
import threading
from typing import NamedTuple, NoReturn

# They are meant for the run, which needs the helper to roll back. The helper ends when the run does.
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
_LONGEST_REQUEST = 8192
_NUMBER = struct.Struct("i")


class Write(NamedTuple):
    """A write that was asked for: the thread that makes it, which /proc has too, and where its answer comes from."""

    pid: int
    answer: int

    def wait(self, seconds: float) -> int | None:
        """Return the errno of the write, 0 if it succeeded; None if it has not returned within this time."""
        poll = select.poll()
        poll.register(self.answer, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return None
        return _receive(self.answer) or 0  # somebody has killed it: what became of the device shows

    def forget(self) -> None:
        """Take no answer any more, whether or not it came."""
        os.close(self.answer)


class Writer:
    """Asks its helper for writes, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helper: socket.socket | None = None

    def start(self) -> None:
        """Start the helper unless it runs. Without that the first write does."""
        with self._lock:
            if self._helper is None:
                self._helper = _start_helper()

    def close(self) -> None:
        """Let the helper end. Writes that have not returned stay."""
        with self._lock:
            if self._helper is not None:
                self._helper.close()
            self._helper = None

    def write(self, path: str, value: str) -> Write:
        """Begin to write a value to a file. The caller has to forget the write at the end."""
        try:
            return self._ask(path, value)
        except OSError:  # somebody has killed the helper
            self.close()
            return self._ask(path, value)

    def _ask(self, path: str, value: str) -> Write:
        self.start()
        answer, theirs = os.pipe()
        try:
            try:
                self._request(theirs, path, value)
            finally:
                os.close(theirs)
            pid = _receive(answer)
            if pid is None:
                raise ConnectionError("the helper was killed")
            return Write(pid, answer)
        except OSError:
            os.close(answer)
            raise

    def _request(self, answer: int, path: str, value: str) -> None:
        helper = self._helper
        if helper is None:
            raise ConnectionError("the helper was killed")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [answer]))]
        helper.sendmsg([path.encode(), b"\0", value.encode()], rights)


def _receive(answer: int) -> int | None:
    data = os.read(answer, _NUMBER.size)
    return int(_NUMBER.unpack(data)[0]) if data else None


def _send(answer: int, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody waits for it any more
        os.write(answer, _NUMBER.pack(number))


# --- the helper ---


def _start_helper() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # A signal that came in between would start the rollback in the helper as well.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        if os.fork() == 0:
            _be_helper(theirs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return ours


def _be_helper(requests: socket.socket) -> NoReturn:
    """Serve requests until nobody can make any more and all are done."""
    try:
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
        _close_files(requests.fileno())
        threads: list[threading.Thread] = []
        while _serve(requests, threads):
            pass
        for thread in threads:
            thread.join()
    finally:
        os._exit(0)


def _close_files(kept: int) -> None:
    """Close what was inherited: a lock on the host, and the output whose end somebody waits for."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _serve(requests: socket.socket, threads: list[threading.Thread]) -> bool:
    """Begin one write; return whether there was a request."""
    data, rights, _flags, _address = requests.recvmsg(_LONGEST_REQUEST, socket.CMSG_SPACE(_NUMBER.size))
    if not data:
        return False
    answer = int(_NUMBER.unpack(rights[0][2])[0])
    thread = threading.Thread(target=_write, args=(answer, *data.split(b"\0")))
    try:
        thread.start()
        threads.append(thread)
    except RuntimeError:  # the system has no room for another thread
        _send(answer, 0)
        _send(answer, errno.EAGAIN)
        os.close(answer)
    return True


def _write(answer: int, path: bytes, value: bytes) -> None:
    _send(answer, threading.get_native_id())
    number = 0
    try:
        handle = os.open(path, os.O_WRONLY)
        try:
            os.write(handle, value)
        finally:
            os.close(handle)
    except OSError as exc:
        number = exc.errno or 0
    _send(answer, number)
    os.close(answer)
