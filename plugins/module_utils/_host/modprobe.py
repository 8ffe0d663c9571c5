# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configured options of kernel modules."""

from __future__ import annotations

import os
from typing import Iterator, NamedTuple

from .._base.fs import Root

# In the order of modprobe.d(5): a file hides those of the same name in later directories.
_FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
CMDLINE = "/proc/cmdline"


class Option(NamedTuple):
    """A module's parameter, and where it is set."""

    name: str
    value: str
    where: str  # file and line


def module_options(root: Root, module: str) -> list[Option]:
    """Return the options of a module, in modprobe's files and on the kernel command line."""
    found = [option for path in _files(root) for option in _of_file(root, path, module)]
    for word in root.must_read(CMDLINE).split():
        name, _dot, option = word.partition(".")
        if option and _is_same(name, module):
            found.append(_option(option, CMDLINE))
    return found


def blocks(root: Root, module: str) -> list[str]:
    """Return what keeps modprobe or the kernel from loading a module, with file and line.

    The word "blacklist" does not: it hides a module from those who ask for a device, not for the module.
    """
    found = []
    for path in _files(root):
        for number, line in enumerate(root.must_read(path).splitlines(), 1):
            words = line.split()
            is_install = len(words) > 2 and words[0] == "install" and _is_same(words[1], module)
            if is_install and os.path.basename(words[2]) in ("true", "false"):
                found.append("%s:%d: %s" % (path, number, line.strip()))
    for word in root.must_read(CMDLINE).split():
        name, _equals, value = word.partition("=")
        if name == "module_blacklist" and any(_is_same(listed, module) for listed in value.split(",")):
            found.append("%s: %s" % (CMDLINE, word))
    return found


def _files(root: Root) -> Iterator[str]:
    seen: set[str] = set()
    for folder in _FOLDERS:
        for name in root.must_list(folder):
            if name.endswith(".conf") and name not in seen:
                seen.add(name)
                yield os.path.join(folder, name)


def _of_file(root: Root, path: str, module: str) -> Iterator[Option]:
    text = root.must_read(path).replace("\\\n", "  ")  # a line may be continued
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) > 2 and words[0] == "options" and _is_same(words[1], module):
            for word in words[2:]:
                yield _option(word, "%s:%d" % (path, number))


def _option(word: str, where: str) -> Option:
    name, _equals, value = word.partition("=")
    return Option(name, value.strip("\"'"), where)


def _is_same(name: str, module: str) -> bool:
    return name.replace("-", "_") == module.replace("-", "_")
