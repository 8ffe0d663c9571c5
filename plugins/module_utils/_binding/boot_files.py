# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that bind the devices at every boot, without Ansible."""

from __future__ import annotations

import os
import sys
from typing import Any

from .._base.files import HEADER, RenderedFile
from .._base.fs import Root
from .._base.paths import (
    ANNOUNCED,
    BINDINGS,
    HOTPLUG_PATH,
    HOTPLUG_RULES,
    HOTPLUG_SERVICE,
    LIBRARY,
    MODPROBE,
    PROGRAM,
    STATE,
    UNIT,
    UNIT_NAME,
    VERIFY,
    WANTS,
)
from .._base.records import dump_json
from .._devices.control import Kernel
from .._host import systemd
from . import bundle, hotplug

# The program of earlier versions was a directory of modules.
_OLD_PROGRAM = LIBRARY + "/noiommu_host"
_OLD_DIRECTORIES = (_OLD_PROGRAM + "/__pycache__", _OLD_PROGRAM)
_DIRECTORIES = (*_OLD_DIRECTORIES, LIBRARY, "/etc/noiommu", STATE)

_COMMAND = """#!/bin/sh
%(header)s%(python)s -I -B %(program)s verify "$@"
# Python exits with 1 when it cannot run the program: that is not drift.
case $? in 0) exit 0 ;; 101) exit 1 ;; *) exit 2 ;; esac
"""

# All that the program's work permits: it writes to sysfs, loads modules, enters network namespaces and looks at open
# files. It must see devices, /tmp and home directories as the host does, or a guard would be blind. By pidfd_getfd, one
# of @debug, guards look at the sockets of others.
_HARDENING = """NoNewPrivileges=yes
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_NET_ADMIN CAP_SYS_ADMIN
CapabilityBoundingSet=CAP_SYS_MODULE CAP_SYS_PTRACE CAP_SYS_RAWIO CAP_SYSLOG
ProtectSystem=strict
StateDirectory=noiommu
ReadWritePaths=-/etc/noiommu /run
ProtectHome=read-only
ProtectHostname=yes
ProtectControlGroups=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=net
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @mount @obsolete @raw-io @reboot @swap
SystemCallFilter=pidfd_getfd
SystemCallErrorNumber=EPERM
"""

# Without default dependencies: with them the unit would wait for sysinit.target, which cloud-init in turn makes wait
# for the network. Ordered before the network, it never blocks it: the network does not require it. Not after
# dpdk.service, which has no time limit: the program waits for it where it binds a device of ours, but not for ever.
_UNIT = """[Unit]
Description=Bind the declared PCI devices to VFIO
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
DefaultDependencies=no
RequiresMountsFor=%(library)s %(state)s
After=local-fs.target systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service
Wants=network-pre.target noiommu-hotplug.path
Before=network-pre.target
Conflicts=shutdown.target
Before=shutdown.target
ConditionPathExists=%(bindings)s

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=%(python)s -I -B %(program)s bind
TimeoutStartSec=300
%(hardening)s
[Install]
WantedBy=multi-user.target
"""

# Started by the path unit below as long as there is any announcement.
_HOTPLUG_SERVICE = """[Unit]
Description=Bind the declared PCI devices that come back to VFIO
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
RequiresMountsFor=%(library)s %(state)s
After=noiommu-bindings.service
StartLimitIntervalSec=60
StartLimitBurst=20

[Service]
Type=oneshot
ExecStart=%(python)s -I -B %(program)s plug
TimeoutStartSec=1200
%(hardening)s"""

_HOTPLUG_PATH = """[Unit]
Description=Watch for declared PCI devices that come back
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
After=noiommu-bindings.service

[Path]
DirectoryNotEmpty=%(announced)s
MakeDirectory=yes
"""


def rendered(root: Root, bindings: dict[str, Any] | None, options: list[str], has_verify: bool) -> list[RenderedFile]:
    """Return all files as they must be; without bindings, none of them exists but perhaps noiommu-verify.

    The order matters if the run is cut off: the unit does nothing without the bindings, and never names a program that
    does not exist.
    """
    wanted = bindings is not None
    contents: list[tuple[str, str | None]] = [
        (MODPROBE, HEADER + "".join("options %s\n" % option for option in options) if wanted and options else None),
        (BINDINGS, dump_json(bindings) if bindings is not None else None),
    ]
    program = bundle.program().decode("utf-8", "surrogateescape") if has_verify else None
    return [
        *(RenderedFile(path, text) for path, text in contents),
        RenderedFile(PROGRAM, program, program=True),
        RenderedFile(UNIT, _text(_UNIT, bindings)),
        RenderedFile(HOTPLUG_SERVICE, _text(_HOTPLUG_SERVICE, bindings)),
        RenderedFile(HOTPLUG_PATH, _text(_HOTPLUG_PATH, bindings)),
        RenderedFile(HOTPLUG_RULES, HEADER + _rules(bindings) if bindings is not None else None),
        RenderedFile(VERIFY, _COMMAND % _words() if has_verify else None, 0o755),
        *(RenderedFile(path, None, program=True) for path in _old_program(root)),
    ]


def _old_program(root: Root) -> list[str]:
    return ["%s/%s" % (_OLD_PROGRAM, name) for name in root.listdir(_OLD_PROGRAM) if name.endswith(".py")]


def _text(template: str, bindings: dict[str, Any] | None) -> str | None:
    return HEADER + template % _words() if bindings is not None else None


def _rules(bindings: dict[str, Any]) -> str:
    kinds = {entry["vendor_device"] for entry in bindings["devices"]}
    return hotplug.rules(kinds, {entry["vendor_device"] for entry in bindings.get("sriov", [])})


def _words() -> dict[str, str]:
    return {
        "header": HEADER,
        "bindings": BINDINGS,
        "hardening": _HARDENING,
        "python": _interpreter(),
        "program": PROGRAM,
        "library": LIBRARY,
        "state": STATE,
        "announced": ANNOUNCED,
    }


def _interpreter() -> str:
    """Prefer the name that stays the same when the distribution is upgraded, if it is the same Python."""
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
    if not declared:
        hotplug.forget_announced(root)


def is_enabled(root: Root) -> bool:
    """Whether the boot unit starts at boot, and with it the watch for devices that come back."""
    return root.link_name(WANTS) == UNIT_NAME


def enable(kernel: Kernel, wanted: bool, changed_paths: list[str]) -> None:
    """Enable or disable the units, and tell a running systemd if that changed."""
    root, runner = kernel.root, kernel.runner
    news = UNIT in changed_paths or is_enabled(root) != wanted
    if wanted and not is_enabled(root):
        root.write_link(WANTS, UNIT)
    elif not wanted:
        root.remove_file(WANTS)
    for path, is_news in ((UNIT, news), (HOTPLUG_PATH, HOTPLUG_PATH in changed_paths)):
        if is_news:
            systemd.reload_if_stale(root, runner, os.path.basename(path))
    if systemd.is_running(root):
        runner.run("systemctl", "start" if wanted else "stop", os.path.basename(HOTPLUG_PATH))
