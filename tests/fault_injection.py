# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts every step with which Ansible's modules change a host, and lets something go wrong before one of them.

Lies on the host as ``sitecustomize.py``, so that Python imports it before the
module. ``/dev/shm/faults/plan`` says what happens, such as ``kill 17``: before the
17th step of this run. ``/dev/shm/faults/steps`` has a line for each step so far.
"""
import os
import signal
import sys

HERE = "/dev/shm/faults"
# Ansible's and Python's own scratch files, and what is no file.
PASSING = ("/dev/null", "/dev/shm/", "/proc/self/", "/root/.ansible", "/run/", "/tmp/")
WRITING = os.O_WRONLY | os.O_RDWR
# Events with the path that they change, the last argument that is one.
PATHS = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.symlink": 1, "os.link": 1,
         "os.chmod": 0, "os.chown": 0}
# What only asks.
ASKING = ("is-active", "is-enabled", "is-system-running", "list-units", "show", "status", "--version", "-V", "-W")

watching = os.path.exists(HERE + "/plan")


def step_of(event, args):
    """Return what is about to change, as one word and what it happens to, or None."""
    if event == "open":
        path, _mode, flags = args
        if isinstance(path, str) and flags & WRITING:
            return ("write", path)
    elif event in PATHS:
        path = args[PATHS[event]]
        if isinstance(path, str):
            return (event.partition(".")[2], path)
    elif event == "subprocess.Popen":
        words = [str(word) for word in args[1]] if isinstance(args[1], (list, tuple)) else str(args[1]).split()
        if not set(ASKING) & set(words):
            return ("run", " ".join(words[:4]))
    return None


def blunder(kind):
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "orphan":
        # Half a second later: what starts now goes on without its parent.
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    elif kind == "cut":
        # The machine starts again at once, and writes nothing back before.
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("b")
        signal.pause()
    elif kind == "fill":
        left = os.statvfs("/")
        with open("/var/filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, left.f_bfree * left.f_frsize - (1 << 20))
            # What is left after that goes in small pieces.
            try:
                while filler.seek(0, os.SEEK_END) and filler.write(b"0" * 4096):
                    filler.flush()
            except OSError:
                pass


def watch(event, args):
    global watching
    if not watching:
        return
    step = step_of(event, args)
    if step is None or (step[0] != "run" and step[1].startswith(PASSING)):
        return
    watching = False  # what follows are our own steps
    try:
        with open(HERE + "/steps", "a+") as steps:
            steps.write("%s %s\n" % step)
            steps.seek(0)
            number = sum(1 for _line in steps)
        with open(HERE + "/plan") as plan:
            kind, at = plan.read().split()
        if number == int(at):
            blunder(kind)
    finally:
        watching = True


if watching:
    sys.addaudithook(watch)
