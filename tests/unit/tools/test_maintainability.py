# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No file does so much that a reader loses his way, as far as radon's maintainability index tells."""

from __future__ import annotations

from pathlib import Path

from radon.metrics import mi_visit

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDERS = ("bench", "molecule", "plugins", "tests", "tools")
LEAST = 20  # of 100; a file below it is split by trade


def test_each_file_can_be_maintained() -> None:
    files = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]
    assert len(files) > 400
    indexes = {path: mi_visit(path.read_text(encoding="utf-8"), multi=True) for path in files}
    assert {str(path.relative_to(REPOSITORY)): index for path, index in indexes.items() if index < LEAST} == {}
