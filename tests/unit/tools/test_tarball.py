# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tarball holds what galaxy.yml allows: all of the collection, and nothing of what is around it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

COLLECTION = Path(__file__).resolve().parents[3]
SHIPPED = ("docs", "kmod", "meta", "playbooks", "plugins", "roles")
NOT_SHIPPED = ("docs/site/", "kmod/.gitignore")
BESIDE = {
    "CHANGELOG.rst",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "RELEASING.md",
    "SECURITY.md",
    "changelogs",
}


def test_the_tarball_has_the_whole_collection_and_no_more(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "ansible", "galaxy", "collection", "build", "--output-path", tmp_path, COLLECTION],
        check=True,
        capture_output=True,
    )
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as tarball:
        shipped = {member.name for member in tarball if member.isfile()}
    listed = subprocess.run(["git", "-C", COLLECTION, "ls-files", *SHIPPED], check=True, capture_output=True, text=True)
    tracked = {path for path in listed.stdout.splitlines() if (COLLECTION / path).exists()}
    wanted = {path for path in tracked if not path.startswith(NOT_SHIPPED)}
    assert wanted - shipped == set()
    assert not [path for path in shipped if path.startswith(NOT_SHIPPED)]
    assert {path.partition("/")[0] for path in shipped} <= {*SHIPPED, *BESIDE}
