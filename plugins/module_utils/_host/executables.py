# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell from a program's file whether it drives devices through VFIO, and whether it starts other programs."""

from __future__ import annotations

import re
from typing import Iterator

from .._base.fs import Root

ELF = b"\x7fELF"
_VFIO = b"/dev/vfio"
# Names of functions and of libraries are NUL-terminated in an ELF file's table of strings. What a name ends with may be
# shared with a longer one.
_STARTS = re.compile(rb"exec[lv]p?e?\0|posix_spawnp?\0|\0forkpty\0|\0system\0|\0popen\0")
_LIBRARY = re.compile(rb"\0(lib[\w.+-]+\.so[\w.]*)(?=\0)")
_DIRECTORY = re.compile(rb"\0((?:/[\w.+-]+)+)(?=\0)")
_LIBRARY_DIRS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib", "/usr/local/lib64")


def starts_programs(root: Root, path: str) -> bool:
    """Whether a program's own code can start others."""
    return _STARTS.search(root.read_bytes(path) or b"") is not None


def uses_vfio(root: Root, path: str) -> bool:
    """Whether a program opens VFIO's nodes, itself or in a library that it is linked with."""
    folders, seen, waiting = _library_dirs(root), {path}, [path]
    while waiting:
        content = root.read_bytes(waiting.pop()) or b""
        if _VFIO in content:
            return True
        libraries = set(_libraries(root, content, folders)) - seen
        seen |= libraries
        # The one that says so for DPDK is next, to be quick.
        waiting += sorted(libraries, key=lambda library: "librte_eal" in library)
    return False


def _libraries(root: Root, content: bytes, folders: list[str]) -> Iterator[str]:
    """Yield the libraries that a file names, also those in directories that it names itself (RPATH)."""
    missing = []
    for name in {match.decode() for match in _LIBRARY.findall(content)}:
        folder = next((folder for folder in folders if root.exists(folder, name)), None)
        if folder is None:
            missing.append(name)
        else:
            yield root.realpath(folder, name)
    own = {match.decode() for match in _DIRECTORY.findall(content)} if missing else set()
    for folder in own:
        yield from (root.realpath(folder, name) for name in missing if root.exists(folder, name))


def _library_dirs(root: Root) -> list[str]:
    base = "/etc/ld.so.conf.d"
    lines = [line.strip() for name in root.listdir(base) for line in (root.read_text(base, name) or "").splitlines()]
    folders = dict.fromkeys([*(line for line in lines if line.startswith("/")), *_LIBRARY_DIRS])
    return [folder for folder in folders if root.exists(folder)]
