# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What files alone do not show of a module: kernels that it does not build for, and what came from archives."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.records import dump_json, load_record
from .._base.schema import fields, flag, items, table, text
from .._host import kernels as _kernels

_SCHEMA = fields(
    {
        "digest": text(),
        "skipped": table(text()),
        "made_keys": flag(),
        "failed": table(fields({"cause": items(text()), "built_with": items(text())})),
        "prebuilt": table(fields({"archive": text(), "files": table(text())})),
    }
)


def record_path(name: str) -> str:
    """Return where it is recorded."""
    return "/var/lib/noiommu/dkms-%s.json" % name


class DkmsRecord(NamedTuple):
    """The record on the host."""

    digest: str
    skipped: dict[str, str] = {}  # the kernels that this source does not support, with the reason
    made_keys: bool = False  # whether DKMS made its signing key for a build of ours
    failed: dict[str, dict[str, Any]] = {}  # the kernels it does not build for: cause, and what was built with
    prebuilt: dict[str, dict[str, Any]] = {}  # the kernels whose module came from an archive: its digest, the files

    @classmethod
    def load(cls, root: Root, name: str) -> DkmsRecord:
        """Read it. If it is damaged, nothing is lost: the next build finds out again."""
        try:
            return load_record(root, record_path(name), cls._parse, "", "", _SCHEMA) or cls("")
        except HostError:
            return cls("")

    @classmethod
    def _parse(cls, stored: dict[str, Any]) -> DkmsRecord:
        return cls(*(stored[name] for name in cls._fields))

    def save(self, root: Root, name: str) -> None:
        """Write it, or remove it if there is nothing to record."""
        path = record_path(name)
        if any(self[1:]):
            root.write_file(path, dump_json(self._asdict()))
        elif root.remove_file(path):
            root.remove_empty_dir(os.path.dirname(path))


def built_with(root: Root, kernel: str) -> list[str]:
    """Return what tells one set of headers and compiler from another, without running anything."""
    paths = ["%s/Module.symvers" % (_kernels.headers(root, kernel) or ""), _kernels.compiler(root, kernel) or ""]
    found = []
    for path in map(root.realpath, paths):
        entry = os.stat(root.path(path)) if root.exists(path) else None
        found.append("%s %s" % (path, "%d %d" % (entry.st_size, entry.st_mtime) if entry else "absent"))
    return found
