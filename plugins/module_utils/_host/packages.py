# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which package a file belongs to, from dpkg's database if there is one."""

from __future__ import annotations

import re

from .._base.fs import Root

DPKG = "/var/lib/dpkg"
# Debian policy, 2.5: the priorities of a usable system.
_BASE = ("required", "important", "standard")


def base_package(root: Root, path: str) -> str | None:
    """Return the package of a file if every usable system has that package, and the evidence for it."""
    name = _package(root, path)
    if name is None:
        return None
    for stanza in (root.read_text(DPKG, "status") or "").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Essential|Priority): (\S+)$", stanza, re.MULTILINE))
        if fields.get("Package") == name:
            if fields.get("Essential") == "yes":
                return "%s (Essential: yes)" % name
            return "%s (Priority: %s)" % (name, fields["Priority"]) if fields.get("Priority") in _BASE else None
    return None


def _package(root: Root, path: str) -> str | None:
    # A package may still name the file as before /bin became a link to /usr/bin.
    names = {path, path[len("/usr") :]} if path.startswith("/usr/") else {path}
    wanted = re.compile("^(%s)$" % "|".join(map(re.escape, sorted(names))), re.MULTILINE)
    for name in root.listdir(DPKG, "info"):
        if name.endswith(".list") and wanted.search(root.read_text(DPKG, "info", name) or ""):
            return name[: -len(".list")].partition(":")[0]
    return None
