# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that stays on the host: these modules in one zip file, so that the logic exists once.

One file is replaced atomically: a power cut cannot leave modules of two versions side by side.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
import zipfile
from typing import TYPE_CHECKING, Iterator

from .._base.files import HEADER

if TYPE_CHECKING:  # Ansible ships what a module imports: these are needed as text only
    from .._report import verify  # noqa: F401
    from . import boot  # noqa: F401

_NAME = "noiommu_host"
_ENTRY_POINTS = ("_binding.boot", "_report.verify")
_MAIN = '''"""Run as: python3 /usr/local/lib/noiommu/noiommu.pyz (bind | plug | status | verify)"""

import sys

if sys.argv[1:2] == ["verify"]:
    from noiommu_host._report.verify import program

    sys.exit(program(sys.argv[2:]))

from noiommu_host._binding.boot import main

sys.exit(main(sys.argv[1:]))
'''
_IMPORT = re.compile(r"^ *from (\.\.?)(\w[\w.]*)? import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
# A fixed time, so that the same modules give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def program() -> bytes:
    """Return the zip file, which Python runs as it is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(files().items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # as on Unix, wherever this runs
            archive.writestr(entry, text)
    return buffer.getvalue()


def files() -> dict[str, str]:
    """Return the text of each file in the program, by its name there."""
    found = {"__main__.py": HEADER + _MAIN, _NAME + "/__init__.py": ""}
    names = list(_ENTRY_POINTS)
    while names:
        name = names.pop()
        path = "%s/%s.py" % (_NAME, name.replace(".", "/"))
        if path not in found:
            package = name.partition(".")[0]
            found["%s/%s/__init__.py" % (_NAME, package)] = ""
            found[path] = _source(name)
            names += _imported(found[path], package)
    return found


def _imported(source: str, package: str) -> Iterator[str]:
    """Yield the modules of module_utils that a module imports, as package.module."""
    for dots, written, several, plain in _IMPORT.findall(source):
        module = written
        if dots == ".":
            module = "%s.%s" % (package, written) if written else package
        if "." in module:
            yield module
        else:
            for name in re.findall(r"(\w+)(?: as \w+)?", several or plain):
                yield "%s.%s" % (module, name)


def _source(name: str) -> str:
    """Read a module where Python would load it from: a file, Ansible's archive, or the control node for Mitogen."""
    full = "%s.%s" % (__package__.rpartition(".")[0], name)
    spec = importlib.util.find_spec(full)
    source = spec.loader.get_source(full) if spec and spec.loader else None  # type: ignore[attr-defined]
    if source is None and spec and spec.loader:
        importlib.import_module(full)  # Mitogen's has a source only once it has loaded it
        source = spec.loader.get_source(full)  # type: ignore[attr-defined]
    if source is None:
        raise RuntimeError("no source of %s" % full)
    return str(source)
