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
import threading
import time

HERE = "/dev/shm/faults"
# Ansible's and Python's own scratch files, and what is no file.
PASSING = ("/dev/shm/", "/proc/self/", "/root/.ansible", "/run/", "/tmp/")
WRITING = os.O_WRONLY | os.O_RDWR
# Events with the argument that is the path that they change, and the one that is the directory it is relative to.
PATHS = {
    "os.rename": (1, 3),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.mkdir": (0, 2),
    "os.symlink": (1, 2),
    "os.link": (1, 3),
    "os.chmod": (0, 2),
    "os.chown": (0, 3),
}
# What only asks.
ASKING = {"is-active", "is-enabled", "is-system-running", "list-units", "show", "status", "--version", "-V", "-W"}


def changes(event, path, args):
    """Return whether the call will do anything: many make sure of what is so already."""
    try:
        if event == "os.rmdir":
            return not os.listdir(path)
        if event in ("os.mkdir", "os.symlink", "os.link"):
            return not os.path.lexists(path)
        about = os.lstat(path)
        if event == "os.chmod":
            return about.st_mode & 0o7777 != args[1]
        return event != "os.chown" or (about.st_uid, about.st_gid) != args[1:3]
    except OSError:
        return event == "os.rename"


def step_of(event, args):
    """Return what is about to change, as one word and what it happens to, or None."""
    if event == "open":
        path, _mode, flags = args
        # A file without a name changes nothing before it is linked.
        nameless = flags & os.O_TMPFILE == os.O_TMPFILE
        if isinstance(path, str) and not path.startswith("/dev/") and flags & WRITING and not nameless:
            return ("write", path)
    elif event in PATHS:
        which, base = PATHS[event]
        path = args[which]
        if isinstance(path, str):
            if args[base] >= 0:
                path = os.path.join(os.readlink("/proc/self/fd/%d" % args[base]), path)
            return (event.partition(".")[2], path) if changes(event, path, args) else None
    elif event == "subprocess.Popen":
        words = [str(word) for word in args[1]] if isinstance(args[1], (list, tuple)) else str(args[1]).split()
        if not ASKING & set(words) and "gcc" not in words[0]:
            return ("run", " ".join(words[:4]))
    return None


def die_after_birth(children):
    while True:
        with open(children) as born:
            if born.read():
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)


def blunder(kind):
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "orphan":
        # As soon as the command that starts now is there; it goes on without its parent.
        children = "/proc/self/task/%d/children" % threading.get_native_id()
        threading.Thread(target=die_after_birth, args=(children,), daemon=True).start()
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
    # Modules write to several devices at once. What follows from a step of ours is none.
    if getattr(ours, "now", False):
        return
    step = step_of(event, args)
    if step is None or (step[0] != "run" and step[1].startswith(PASSING)):
        return
    ours.now = True
    try:
        with one_at_a_time:
            with open(HERE + "/steps", "a+") as steps:
                steps.write("%s %s\n" % step)
                steps.seek(0)
                number = sum(1 for _line in steps)
            with open(HERE + "/plan") as plan:
                kind, at = plan.read().split()
            if number == int(at):
                blunder(kind)
    finally:
        ours.now = False


if os.path.exists(HERE + "/plan"):
    ours, one_at_a_time = threading.local(), threading.Lock()
    sys.addaudithook(watch)
