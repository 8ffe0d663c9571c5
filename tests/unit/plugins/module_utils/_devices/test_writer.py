# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes that may never return: a FIFO that nobody reads stands in for the kernel's attribute."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices import transaction
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.writer import Writer


@pytest.fixture
def writer() -> Iterator[Writer]:
    one = Writer()
    yield one
    one.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # what still hangs ends


def process_of(thread: int) -> int:
    """Return the helper's process."""
    text = Path("/proc/%d/status" % thread).read_text()
    return int(text.partition("\nTgid:")[2].split()[0])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_writes_and_tells_the_errno(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, number in ((tmp_path / "file", 0), (tmp_path / "none", errno.ENOENT), (tmp_path, errno.EISDIR)):
        write = writer.write(str(path), "0000:00:04.0")
        assert write.wait(30) == number and write.pid > 0
        write.forget()
    assert (tmp_path / "file").read_text() == "0000:00:04.0"


def test_one_that_hangs_keeps_no_other(writer: Writer, tmp_path: Path, fifo: Path) -> None:
    hanging = writer.write(str(fifo), "x")
    files = [tmp_path / str(number) for number in range(64)]

    def job(path: Path) -> Callable[[], None]:
        def write() -> None:
            path.touch()
            asked = writer.write(str(path), path.name)
            assert asked.wait(30) == 0
            asked.forget()

        return write

    transaction.in_parallel([job(path) for path in files])
    assert [path.read_text() for path in files] == [path.name for path in files]
    assert hanging.wait(0.01) is None
    reader = os.open(fifo, os.O_RDONLY)
    assert hanging.wait(30) == 0 and os.read(reader, 10) == b"x"
    os.close(reader)
    hanging.forget()


def test_it_outlives_the_run_as_long_as_a_write_hangs(writer: Writer, fifo: Path) -> None:
    write = writer.write(str(fifo), "x")
    helper = process_of(write.pid)
    write.forget()
    writer.close()
    time.sleep(0.1)
    assert is_running(write.pid) and is_running(helper)
    os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
    wait_until(lambda: not is_running(helper))


def test_a_signal_to_end_is_for_the_run(writer: Writer, tmp_path: Path, fifo: Path) -> None:
    helper = process_of(writer.write(str(fifo), "x").pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(helper, number)
    (tmp_path / "file").touch()
    assert writer.write(str(tmp_path / "file"), "x").wait(30) == 0 and is_running(helper)
    assert os.getsid(helper) == helper, "the terminal's signals do not reach it"


def test_a_helper_that_was_killed_is_replaced(writer: Writer, tmp_path: Path, fifo: Path) -> None:
    hanging = writer.write(str(fifo), "x")
    os.kill(process_of(hanging.pid), signal.SIGKILL)
    assert hanging.wait(30) == 0, "what became of the device shows"
    (tmp_path / "file").touch()
    assert writer.write(str(tmp_path / "file"), "y").wait(30) == 0
    assert (tmp_path / "file").read_text() == "y"


def test_it_keeps_no_lock_and_nobody_s_output(writer: Writer, tmp_path: Path, fifo: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    helper = process_of(writer.write(str(fifo), "x").pid)
    os.close(lock)
    again = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(again)
    assert {os.readlink("/proc/%d/fd/%d" % (helper, number)) for number in range(3)} == {"/dev/null"}


def test_a_run_that_is_told_to_end_meanwhile_ends_once(tmp_path: Path) -> None:
    """A signal that came while the helper was forked must not start a rollback in the helper."""
    code = """
import os, signal, sys
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.writer import Writer
def end(number, frame):
    os.write(1, b"rollback\\n")
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
fork = os.fork
def forked():
    os.kill(os.getpid(), signal.SIGTERM)
    return fork()
os.fork = forked
Writer().start()
os.write(1, b"not reached\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, b"rollback\n"), done.stderr
