# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that bring the bindings up at every boot, without Ansible."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from . import _boot, _store, _systemd, _verify
from ._files import HEADER, RenderedFile
from ._fs import Root
from ._kernel import Kernel
from ._paths import LIBRARY, MODPROBE, STATE, TOOL, UNIT, UNIT_NAME, VERIFY, WANTS

_BYTECODE = TOOL + "/__pycache__"
_DIRECTORIES = (_BYTECODE, TOOL, LIBRARY, "/etc/noiommu", STATE)


_MAIN = '''"""Run as: python3 /usr/local/lib/noiommu/noiommu_host (bind | status | verify)"""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

if sys.argv[1:2] == ["verify"]:
    from noiommu_host._verify import main

    sys.exit(main(sys.argv[2:]))

from noiommu_host._boot import main

sys.exit(main(sys.argv[1:]))
'''

_COMMAND = """#!/bin/sh
%(header)sexec %(python)s -B %(tool)s verify "$@"
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
ExecStart=%(python)s -B %(tool)s bind
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
"""


def rendered(bindings: dict[str, Any] | None, options: list[str]) -> list[RenderedFile]:
    """Return all files as they shall be; none of them shall exist if there are no bindings."""
    texts: dict[str, str | None] = {
        MODPROBE: HEADER + "".join("options %s\n" % option for option in options) if bindings and options else None,
        _store.BINDINGS: _store.dump_json(bindings) if bindings else None,
        UNIT: HEADER + _unit() if bindings else None,
    }
    return [RenderedFile(path, text) for path, text in texts.items()] + [
        RenderedFile(TOOL + "/" + name, source if bindings else None, program=True)
        for name, source in tool_sources().items()
    ] + [RenderedFile(VERIFY, _COMMAND % _words() if bindings else None, 0o755)]


def tool_sources() -> dict[str, str]:
    """Return the program: these very modules with all that they import, so that the logic has one home."""
    sources: dict[str, str] = {"__main__.py": HEADER + _MAIN}
    names = [module.__name__.rsplit(".", 1)[1] for module in (_boot, _verify)]
    while names:
        name = names.pop()
        if name + ".py" not in sources:
            module = importlib.import_module("." + name, __package__)
            source = module.__loader__.get_source(module.__name__)
            sources[name + ".py"] = source
            for several, one in re.findall(r"^from \. import (.+)$|^from \.(\w+) import ", source, re.MULTILINE):
                names += re.split(r",\s*", several) if several else [one]
    return dict(sorted(sources.items()))


def _unit() -> str:
    return _UNIT % _words()


def _words() -> dict[str, str]:
    return {"header": HEADER, "bindings": _store.BINDINGS, "python": _interpreter(), "tool": TOOL,
            "library": LIBRARY, "state": STATE}


def _interpreter() -> str:
    """Prefer the name that survives an upgrade of the distribution, if it is the same Python."""
    stable = "/usr/bin/python3"
    return stable if os.path.realpath(stable) == os.path.realpath(sys.executable) else sys.executable


def scraps(root: Root) -> list[str]:
    """Return our directories that are empty: whoever emptied them was killed before it removed them."""
    return [path for path in _DIRECTORIES if os.path.isdir(root.path(path)) and not root.listdir(path)]


def tidy(root: Root) -> None:
    """Remove what Python made of the tool when somebody ran it by hand, and every directory of ours that is empty."""
    for name in root.listdir(_BYTECODE):
        root.remove_file(_BYTECODE + "/" + name)
    for path in _DIRECTORIES:
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
        _systemd.reload_if_stale(kernel.root, kernel.runner, UNIT_NAME)
