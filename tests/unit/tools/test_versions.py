# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions of ansible-core that are promised are those that make matrix tries."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

COLLECTION = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def venvs() -> ModuleType:
    """Return what knows the versions."""
    spec = importlib.util.spec_from_file_location("venvs", COLLECTION / "tests/engines/venvs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_oldest_is_what_ansible_is_told(venvs: ModuleType) -> None:
    runtime = yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text(encoding="utf-8"))
    assert runtime["requires_ansible"] == ">=%s.0" % next(iter(venvs.NEEDS))


def test_the_page_has_a_row_for_each(venvs: ModuleType) -> None:
    page = (COLLECTION / "docs/engines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (2\.\d+) \| 3\.(\d+) and later \|", page, re.MULTILINE)
    assert {version: (3, int(minor)) for version, minor in rows} == venvs.NEEDS


def test_the_oldest_python_that_is_new_enough_is_taken(
    venvs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert venvs.find_python((3, 11)) is None
    for name in ("3.13.0/bin/python3.13", "3.12.1/bin/python3.12", "3.10.2/bin/python3.10"):
        path = tmp_path / "versions" / name
        path.parent.mkdir(parents=True)
        path.symlink_to(sys.executable)
    assert venvs.find_python((3, 11)) == str(tmp_path / "versions/3.12.1/bin/python3.12")
    assert venvs.find_python((3, 14)) is None
    # What pyenv leaves on PATH for a version that is not installed.
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert venvs.find_python((3, 12)) == str(tmp_path / "versions/3.12.1/bin/python3.12")
