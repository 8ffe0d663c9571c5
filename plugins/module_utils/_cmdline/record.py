# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has which parameters on the kernel command line, and what it was before anything of ours."""

from __future__ import annotations

from typing import Any

from .._base.fs import Root
from .._base.paths import CMDLINE_RECORD as RECORD
from .._base.records import dump_json, load_record
from .._base.schema import fields, items, nullable, table, text
from .mechanism import Original
from .words import Parameters, split

_SCHEMA = fields(
    {
        "owners": table(fields({"parameters": items(text()), "without": items(text())})),
        "lines": items(items(text())),  # pairs of a kernel and its line
        "source": nullable(text()),
        "made": items(text("/.*", "an absolute path")),
    }
)


class CommandLineRecord:
    """The record on the host."""

    def __init__(self, owners: dict[str, Parameters], original: Original | None, made: list[str]) -> None:
        self.owners, self.original, self.made = owners, original, made

    @classmethod
    def load(cls, root: Root) -> CommandLineRecord:
        """Read the file; an empty record if there is none."""
        damage = "The record of the original kernel command line is damaged."
        remedy = "Look at the boot loader's settings yourself, then remove %s." % RECORD
        return load_record(root, RECORD, cls._parse, damage, remedy, _SCHEMA) or cls({}, None, [])

    @classmethod
    def _parse(cls, stored: dict[str, Any]) -> CommandLineRecord:
        owners = {name: Parameters(entry["parameters"], entry["without"]) for name, entry in stored["owners"].items()}
        lines = {kernel: split(line) for kernel, line in stored["lines"]}
        return cls(owners, Original(lines, stored["source"]), stored["made"])

    def render(self) -> str | None:
        """Return the file's text, None if nothing is ours."""
        if not self.owners or self.original is None:
            return None
        return dump_json(
            {
                "owners": {name: parameters._asdict() for name, parameters in self.owners.items()},
                # A list: the default kernel comes first.
                "lines": [[kernel, " ".join(words)] for kernel, words in self.original.lines.items()],
                "source": self.original.source,
                "made": self.made,
            }
        )
