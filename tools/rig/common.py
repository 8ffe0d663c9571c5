# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""What every part of the rig shares: errors, progress, locks, long commands. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

TICK = 15.0  # seconds between two progress lines of one long step
UNUSED = 7 * 86400.0  # seconds after which what nobody used leaves the cache
REPOSITORY = Path(__file__).resolve().parent.parent.parent
IMAGES = REPOSITORY / "tools/images"


class RigError(Exception):
    """An error that the user can act on: what is wrong, what shows it, what to do."""

    def __init__(self, cause: str, evidence: str = "", remedy: str = "") -> None:
        super().__init__(cause)
        self.cause, self.evidence, self.remedy = cause, evidence, remedy

    def __str__(self) -> str:
        lines = [f"error: {self.cause}"]
        for label, text in (("evidence", self.evidence), ("remedy", self.remedy)):
            if text:
                lines.append(f"  {label}: " + text.strip().replace("\n", "\n    "))
        return "\n".join(lines)


def cache_dir() -> Path:
    """Where images, packages and the ssh key are kept between runs."""
    path = Path(os.environ.get("NOIOMMU_CACHE") or Path.home() / ".cache/baremetal-noiommu")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise RigError(
            f"cannot make the cache directory {path}",
            str(exc),
            "set NOIOMMU_CACHE to a directory that you can write to",
        ) from exc
    return path.resolve()


def say(text: str) -> None:
    """One progress line; standard output is for results only."""
    print(f"[rig] {text}", file=sys.stderr, flush=True)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, without the control characters of a serial console."""
    try:
        raw = path.read_bytes()[-20000:].decode(errors="replace")
    except OSError as exc:
        return f"({exc})"
    clean = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw).replace("\r", "\n")
    text = ["".join(c for c in line if c.isprintable()) for line in clean.splitlines()]
    return "\n".join([line for line in text if line.strip()][-lines:])


class Ticker:
    """Says every TICK seconds what is being waited for, with the time it has taken."""

    def __init__(self, what: str) -> None:
        self.what, self.start = what, time.monotonic()
        self.next = self.start + TICK
        say(f"{what} ...")

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def tick(self, detail: str = "") -> None:
        """Print a line if it is time for one."""
        if time.monotonic() >= self.next:
            self.next += TICK
            say(f"... {self.what}: {self.elapsed:.0f} s" + (f" ({detail[-100:]})" if detail else ""))

    def done(self) -> None:
        say(f"{self.what}: done after {self.elapsed:.0f} s")


def run_logged(
    what: str,
    command: Sequence[str],
    log: Path,
    remedy: str = "",
    env: dict[str, str] | None = None,
    watch: Path | None = None,
) -> None:
    """Run a long command with its output in `log`, showing progress; a failure shows the log's end.

    Where the command stands is in the last line of `watch`, if that is not the same file.
    """
    ticker = Ticker(what)
    with log.open("ab") as out:
        proc = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=env
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    proc.wait(timeout=1)
                    break
                ticker.tick(tail(watch or log, 1))
        except BaseException:  # also an interrupt: the child has mounts to undo, give it time
            os.killpg(proc.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                proc.wait(timeout=30)
            raise
    if proc.returncode != 0:
        raise RigError(
            f"{what}: {command[0]} failed with exit code {proc.returncode}",
            tail(log),
            remedy or f"read {log}, then run the same command again",
        )
    ticker.done()


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock, saying so while another run has it. The kernel drops it if we die."""
    with path.open("w", encoding="utf-8") as handle:
        ticker: Ticker | None = None
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                ticker = ticker or Ticker(f"waiting for another run that is {what}")
                ticker.tick(str(path))
                time.sleep(1)
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end a run the way ctrl-C does: by an exception that tears down."""

    def interrupt(signum: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(signum).name)

    before = {sig: signal.signal(sig, interrupt) for sig in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
