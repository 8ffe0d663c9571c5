# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What sysctl sets from files, at boot and whenever it reads all of them."""

from __future__ import annotations

from typing import NamedTuple

from .._base.fs import Root

# Of files with the same name, only the one in the first directory is read.
_DIRECTORIES = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
# Read by `sysctl --system`, and at boot where /etc/sysctl.d has a link to it.
_LAST = "/etc/sysctl.conf"


class Setting(NamedTuple):
    """A line of such a file."""

    path: str
    line: int
    value: str


def setting(root: Root, key: str) -> Setting | None:
    """Return the line that takes effect for a key such as vm.nr_hugepages: the last of all files, ordered by name."""
    files: dict[str, str] = {}
    for folder in _DIRECTORIES:
        for name in root.listdir(folder):
            if name.endswith(".conf"):
                files.setdefault(name, folder + "/" + name)
    found = None
    for path in [*(files[name] for name in sorted(files)), _LAST]:
        text = (root.read_bytes(path) or b"").decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            name, equals, value = line.partition("=")
            # A leading minus means that a failure is ignored.
            if equals and name.strip().lstrip("-").replace("/", ".") == key:
                found = Setting(path, number, value.strip())
    return found
