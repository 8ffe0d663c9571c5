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

from live import REPOSITORY, RUN, host_state, hosts, on, playbook, recorded, rig

HOST = "hapless"
POINTS = RUN / "fault-points.json"
# How long a host may not answer: an emulated processor that builds a kernel module is slow.
PATIENCE = 45.0

WRAPPER = "#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/dev/shm/faults exec /usr/bin/python3 \"$@\"\n"
# Names that are different each time.
RANDOM = re.compile(r"(\.noiommu-|/tmp|ansible-?tmp|\.ansible_)[\w.-]*|\b\d{5,}\b")
# Steps of which many follow each other, as one for each file of a directory.
KINDS = {**dict.fromkeys(("mkdir", "link", "rename", "symlink", "chmod", "chown"), "make"),
         **dict.fromkeys(("remove", "rmdir"), "unmake"), "write": "write"}
# What no two deploys leave alike: when it was.
TIMES = ("/log/make.log",)


def snapshot(verb: str, tag: str) -> None:
    """Save the machine with its memory and disk under a name, or go back there."""
    rig("snapshot", HOST, verb, tag)


def arm(plan: str) -> None:
    """Put the fault on the host: before which of its steps what happens."""
    source = (REPOSITORY / "tests" / "fault_injection.py").read_text(encoding="utf-8")
    on(HOST, "rm -rf /dev/shm/faults; mkdir /dev/shm/faults; cat > /dev/shm/faults/sitecustomize.py", stdin=source)
    on(HOST, f"cd /dev/shm/faults; cat > python; chmod +x python; echo {plan} > plan", stdin=WRAPPER)


def disarm() -> list[str]:
    """Take the fault from the host; return the steps that it counted."""
    return on(HOST, "cat /dev/shm/faults/steps; rm -rf /dev/shm/faults").splitlines()


def run(name: str, *, armed: bool = False, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run a playbook with connections of its own: those of an earlier run end with a snapshot or a power cut."""
    variables = {"ansible_python_interpreter": "/dev/shm/faults/python"} if armed else {}
    with tempfile.TemporaryDirectory() as sockets:
        return playbook(name, HOST, environ={"ANSIBLE_SSH_CONTROL_PATH_DIR": sockets, **(environ or {})}, **variables)


def interrupted(name: str, task: str, command: str = "") -> subprocess.CompletedProcess:
    """Run a playbook that is killed when a task starts, or at that time has something happen."""
    return run(name, environ={"ANSIBLE_CALLBACKS_ENABLED": "record,interrupt", "NOIOMMU_INTERRUPT_AT": task,
                              "NOIOMMU_INTERRUPT_BY": command})


def counted(name: str) -> dict[str, list]:
    """Run a playbook to its end; return every step that it changed the host with, and every task that reached it."""
    arm("count 0")
    done = run(name, armed=True)
    assert done.returncode == 0, done.stdout
    steps = [RANDOM.sub("*", step) for step in disarm()]
    last = max((RUN / "record").glob(f"run-{name}-*.jsonl"), key=lambda path: path.stat().st_mtime).stem
    ran = [entry["task"] for entry in recorded(last) if entry["status"] == "ok" and entry["remote"]]
    return {"steps": steps, "tasks": list(dict.fromkeys(ran))}


def in_the_middle(steps: list[str]) -> list[tuple[int, str]]:
    """Return the number and the text of each step; of those of one kind that follow each other, of the middle one."""
    found = []
    numbered = list(enumerate(steps, 1))
    for _kind, group in itertools.groupby(numbered, key=lambda one: KINDS.get(one[1].split()[0], one)):
        alike = list(group)
        found.append(alike[len(alike) // 2])
    return found


def state() -> dict:
    """Return the host's state as far as two undisturbed deploys leave it alike."""
    found = host_state(HOST)
    found["files"] = {path: about for path, about in found["files"].items() if not path.endswith(TIMES)}
    return found


def points() -> dict[str, dict]:
    """Return what the stage ``enumerated`` found."""
    return json.loads(POINTS.read_text(encoding="utf-8"))


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """The host's ssh daemon answers all along, by fresh connections, whatever goes on in the meantime."""
    port, silent, last, over = hosts()[HOST]["ansible_port"], [], time.monotonic(), threading.Event()

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
