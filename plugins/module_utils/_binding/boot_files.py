# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that bring the bindings up at every boot, without Ansible."""

from __future__ import annotations

import os
import sys
from typing import Any

from .._base.files import HEADER, RenderedFile
from .._base.fs import Root
from .._base.paths import BINDINGS, LIBRARY, MODPROBE, PROGRAM, STATE, UNIT, UNIT_NAME, VERIFY, WANTS
from .._base.records import dump_json
from .._devices.control import Kernel
from .._host import systemd
from . import bundle

# The program of earlier versions was a directory of modules.
_OLD_PROGRAM = LIBRARY + "/noiommu_host"
_OLD_DIRECTORIES = (_OLD_PROGRAM + "/__pycache__", _OLD_PROGRAM)
_DIRECTORIES = (*_OLD_DIRECTORIES, LIBRARY, "/etc/noiommu", STATE)

_COMMAND = """#!/bin/sh
%(header)s%(python)s -B %(program)s verify "$@"
# Python exits with 1 when it cannot run the program: that is not drift.
case $? in 0) exit 0 ;; 101) exit 1 ;; *) exit 2 ;; esac
"""

# Without default dependencies: with them the unit would wait for sysinit.target, which cloud-init in turn makes wait
# for the network. Ordered before the network, it never blocks it: the network does not require it.
_UNIT = """[Unit]
Description=Bind the declared PCI devices to VFIO
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
DefaultDependencies=no
RequiresMountsFor=%(library)s %(state)s
After=local-fs.target systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service
Wants=network-pre.target
Before=network-pre.target
Conflicts=shutdown.target
Before=shutdown.target
ConditionPathExists=%(bindings)s

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=%(python)s -B %(program)s bind
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
"""


def rendered(root: Root, bindings: dict[str, Any] | None, options: list[str]) -> list[RenderedFile]:
    """Return all files as they must be; without bindings, none of them exists.

    The order matters to a run that is cut off: the unit does nothing without the bindings, and never names a program
    that is not there yet, or no more.
    """
    wanted = bindings is not None
    contents: list[tuple[str, str | None]] = [
        (MODPROBE, HEADER + "".join("options %s\n" % option for option in options) if wanted and options else None),
        (BINDINGS, dump_json(bindings) if bindings is not None else None),
    ]
    program = bundle.program().decode("utf-8", "surrogateescape") if wanted else None
    return [
        *(RenderedFile(path, text) for path, text in contents),
        RenderedFile(PROGRAM, program, program=True),
        RenderedFile(UNIT, HEADER + _unit() if wanted else None),
        RenderedFile(VERIFY, _COMMAND % _words() if wanted else None, 0o755),
        *(RenderedFile(path, None, program=True) for path in _old_program(root)),
    ]


def _old_program(root: Root) -> list[str]:
    return ["%s/%s" % (_OLD_PROGRAM, name) for name in root.listdir(_OLD_PROGRAM) if name.endswith(".py")]


def _unit() -> str:
    return _UNIT % _words()


def _words() -> dict[str, str]:
    return {
        "header": HEADER,
        "bindings": BINDINGS,
        "python": _interpreter(),
        "program": PROGRAM,
        "library": LIBRARY,
        "state": STATE,
    }


def _interpreter() -> str:
    """Prefer the name that survives an upgrade of the distribution, if it is the same Python."""
    stable = "/usr/bin/python3"
    return stable if os.path.realpath(stable) == os.path.realpath(sys.executable) else sys.executable


def empty_directories(root: Root, declared: bool) -> list[str]:
    """Return our directories that are empty: the run that emptied them was killed before it removed them."""
    directories = _OLD_DIRECTORIES if declared else _DIRECTORIES
    return [path for path in directories if os.path.isdir(root.path(path)) and not root.listdir(path)]


def remove_leftovers(root: Root, declared: bool) -> None:
    """Remove what Python left beside an earlier version's program, and our empty directories."""
    bytecode = _OLD_DIRECTORIES[0]
    for name in root.listdir(bytecode):
        root.remove_file("%s/%s" % (bytecode, name))
    for path in _OLD_DIRECTORIES if declared else _DIRECTORIES:
        root.remove_empty_dir(path)


def is_enabled(root: Root) -> bool:
    """Whether the unit starts at boot."""
    return root.link_name(WANTS) == UNIT_NAME


def enable(kernel: Kernel, wanted: bool, unit_changed: bool) -> None:
    """Have the unit start at boot or not, and let a running systemd know if that is news."""
    news = unit_changed or is_enabled(kernel.root) != wanted
    if wanted and not is_enabled(kernel.root):
        kernel.root.write_link(WANTS, UNIT)
    elif not wanted:
        kernel.root.remove_file(WANTS)
    if news:
        systemd.reload_if_stale(kernel.root, kernel.runner, UNIT_NAME)
