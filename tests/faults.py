# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages of the scenario faults share: snapshots, runs in which something goes wrong, and where it does."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from live import REPOSITORY, RUN, boot_id, host_state, hosts, on, playbook, recorded, rig

# Machines that are alike: each process of pytest-xdist has its own, and all have the same points.
MACHINES = sorted(hosts())
# How long a host may not answer: an emulated processor that builds a kernel module is slow.
PATIENCE = 45.0

WRAPPER = '#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/dev/shm/faults exec /usr/bin/python3 "$@"\n'
# Names that are different each time, or on each machine.
RANDOM = re.compile(r"(\.noiommu-|/tmp|ansible-?tmp|\.ansible_)[\w.-]*|\b\d{5,}\b|\b([0-9a-f]{2}[:-]){5,}[0-9a-f]{2}\b")
# Steps that are the same to whoever finds them half done, such as one for each file of a directory.
KINDS = {
    **dict.fromkeys(("mkdir", "link", "rename", "symlink", "chmod", "chown"), "make"),
    **dict.fromkeys(("remove", "rmdir"), "unmake"),
    "write": "write",
}
ONE_KIND = {
    "run modprobe -r": "unload",
    "run udevadm": "reload",
    "run systemctl": "reload",
    "run groupadd": "account",
    "run usermod": "account",
}
# What no two deploys leave alike: when it was, and modules that are signed with keys of their own.
WHEN, SIGNED = "/log/make.log", ".ko"
BINDINGS = "/etc/noiommu/bindings.json"


def snapshot(machine: str, verb: str, tag: str) -> None:
    """Save a machine with its memory and disk under a name, or go back there."""
    rig("snapshot", machine, verb, tag)


def arm(machine: str, plan: str) -> None:
    """Put the fault on a machine: before which of its steps what happens."""
    source = (REPOSITORY / "tests" / "fault_injection.py").read_text(encoding="utf-8")
    on(machine, "rm -rf /dev/shm/faults; mkdir /dev/shm/faults; cat > /dev/shm/faults/sitecustomize.py", stdin=source)
    on(machine, f"cd /dev/shm/faults; cat > python; chmod +x python; echo {plan} > plan", stdin=WRAPPER)


def disarm(machine: str) -> list[str]:
    """Take the fault from a machine; return the steps that it counted."""
    return on(machine, "cat /dev/shm/faults/steps; rm -rf /dev/shm/faults").splitlines()


def run(
    machine: str, name: str, *, armed: bool = False, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run a playbook with connections of its own: those of an earlier run end with a snapshot or a power cut."""
    variables = {"ansible_python_interpreter": "/dev/shm/faults/python"} if armed else {}
    with tempfile.TemporaryDirectory() as sockets:
        environ = {"ANSIBLE_SSH_CONTROL_PATH_DIR": sockets, **(environ or {})}
        return playbook(name, machine, environ=environ, **variables)


def interrupted(machine: str, name: str, task: str, command: str = "") -> subprocess.CompletedProcess:
    """Run a playbook that is killed when a task starts, or at that time has something happen."""
    return run(
        machine,
        name,
        environ={
            "ANSIBLE_CALLBACKS_ENABLED": "record,interrupt",
            "NOIOMMU_INTERRUPT_AT": task,
            "NOIOMMU_INTERRUPT_BY": command,
        },
    )


def counted(machine: str, name: str) -> dict[str, list]:
    """Run a playbook to its end; return every step that it changed a machine with, and every task that reached it."""
    arm(machine, "count 0")
    done = run(machine, name, armed=True)
    assert done.returncode == 0, done.stdout
    steps = [RANDOM.sub("*", step) for step in disarm(machine)]
    ran = [entry["task"] for entry in last_run(machine, name) if entry["status"] == "ok" and entry["remote"]]
    return {"steps": steps, "tasks": list(dict.fromkeys(ran))}


def last_run(machine: str, name: str) -> list[dict]:
    """Return what the last run of a playbook on a machine recorded."""
    runs = sorted((RUN / "record").glob(f"run-{name}-*.jsonl"), key=lambda path: path.stat().st_mtime)
    mine = ([entry for entry in recorded(path.stem) if entry["host"] == machine] for path in reversed(runs))
    return next(filter(None, mine))


def in_the_middle(steps: list[str]) -> list[tuple[int, str]]:
    """Return the number and the text of each step; of those of one kind that follow each other, of the middle one."""
    found = []
    for _kind, group in itertools.groupby(enumerate(steps, 1), key=kind):
        alike = list(group)
        found.append(alike[len(alike) // 2])
    return found


def kind(step: tuple[int, str]) -> object:
    """Return what is equal for steps of one kind; most that run a command are of a kind of their own."""
    text = step[1]
    commands = (kind for start, kind in ONE_KIND.items() if text.startswith(start))
    return KINDS.get(text.split()[0]) or next(commands, step)


def one_of_each(steps: list[tuple[int, str]], starts: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return the last step that begins with each of these words: there most is at stake."""
    last = {start: step for step in steps for start in starts if step[1].startswith(start)}
    return list(last.values())


def restarted(machine: str, before: str) -> bool:
    """Wait until a machine answers after a power cut; a connection while it starts may be refused or reset."""
    over = time.monotonic() + 300
    while time.monotonic() < over:
        with contextlib.suppress(AssertionError):
            if boot_id(machine) != before:
                return True
        time.sleep(2)
    return False


def state(machine: str) -> dict:
    """Return a machine's state as far as two undisturbed deploys leave it alike."""
    found = host_state(machine)
    files = {path: about for path, about in found["files"].items() if not path.endswith(WHEN)}
    # Mode, owner, and that there is something in it; of what is in the bindings' file, all but the time.
    found["files"] = {
        path: [*about[:3], about[3] > 0] if path.endswith(SIGNED) else about
        for path, about in files.items()
        if path != BINDINGS
    }
    found["bindings"] = json.loads(on(machine, f"cat {BINDINGS}"))
    assert found["bindings"].pop("insecure_since")
    return found


def points_file(machine: str) -> Path:
    """Return where the stage ``enumerated`` keeps what it finds on a machine."""
    return RUN / f"fault-points-{machine}.json"


def points(machine: str) -> dict[str, dict]:
    """Return what the stage ``enumerated`` found."""
    return json.loads(points_file(machine).read_text(encoding="utf-8"))


@contextlib.contextmanager
def reachable(machine: str) -> Iterator[None]:
    """A machine's ssh daemon answers all along, by fresh connections, whatever goes on in the meantime."""
    port, silent, last, over = hosts()[machine]["ansible_port"], [], time.monotonic(), threading.Event()

    def knock() -> None:
        nonlocal last
        while not over.wait(1):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
                if connection.recv(4) == b"SSH-":
                    last = time.monotonic()
            if time.monotonic() - last > PATIENCE:
                silent.append(time.monotonic() - last)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not silent, f"no answer for {max(silent):.0f} s"
