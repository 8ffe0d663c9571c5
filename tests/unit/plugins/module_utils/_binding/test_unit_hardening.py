# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units as systemd itself judges them: nothing unknown in them, and no more exposed than their work needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.files import RenderedFile
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import HUGEPAGES_UNIT, UNIT, UNITS_DIR
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding import boot_files
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages import boot_files as hugepages
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def services(tree: Tree) -> dict[str, str]:
    """Return every service that the collection writes."""
    bindings = {"devices": [], "sriov": []}
    files: list[RenderedFile] = [*boot_files.rendered(tree.root, bindings, [], True), *hugepages.rendered([])]
    units = {file.path: file.content or "" for file in files if os.path.dirname(file.path) == UNITS_DIR}
    units[HUGEPAGES_UNIT] = hugepages.unit()
    return {path: text for path, text in units.items() if path.endswith(".service")}


@needs_systemd
# Of 10; without any of this, systemd 252 rates them 9.5. Its other versions differ a little in what they count.
@pytest.mark.parametrize(("path", "most"), [(UNIT, 6.0), (boot_files.HOTPLUG_SERVICE, 6.0), (HUGEPAGES_UNIT, 3.0)])
def test_how_exposed_a_service_is(tree: Tree, tmp_path: Path, path: str, most: float) -> None:
    unit = tmp_path / os.path.basename(path)
    unit.write_text(services(tree)[path])
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None and float(found.group(1)) <= most, done.stdout + done.stderr
    assert "nknown" not in done.stderr and "nvalid" not in done.stderr, done.stderr


def test_every_service_is_limited(tree: Tree) -> None:
    for path, text in services(tree).items():
        assert "\nNoNewPrivileges=yes\n" in text and "\nCapabilityBoundingSet=" in text, path


@pytest.mark.parametrize("path", [UNIT, boot_files.HOTPLUG_SERVICE])
def test_the_guards_may_look_at_the_sockets_of_others(tree: Tree, path: str) -> None:
    """Of @debug, which has it since systemd 247, all but this: without it, each packet socket takes all packets."""
    filters = re.findall(r"^SystemCallFilter=(.*)$", services(tree)[path], re.MULTILINE)
    assert filters[0].startswith("~") and "@debug" in filters[0] and filters[1:] == ["pidfd_getfd"]


def test_the_program_runs_isolated(tmp_path: Path, tree: Tree) -> None:
    """Neither the environment nor the directory that it is started in gives Python anything to import."""
    for text in (services(tree)[UNIT], services(tree)[boot_files.HOTPLUG_SERVICE]):
        assert re.search(r"^ExecStart=\S+ -I -B \S+\.pyz ", text, re.MULTILINE)
    with zipfile.ZipFile(tmp_path / "program.pyz", "w") as archive:
        archive.writestr("__main__.py", "import inside\n")
        archive.writestr("inside.py", "import json; print(json.__file__)\n")
    (tmp_path / "json.py").write_text("raise SystemExit('not the real one')\n")
    done = subprocess.run(
        [sys.executable, "-I", "-B", "program.pyz"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "json/__init__.py" in done.stdout
