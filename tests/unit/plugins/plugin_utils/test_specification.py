# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The specification explains every key, its examples are right, and docs/variables.md is what it makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest
import yaml
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.declared import refusals
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import VARIABLES

SOURCE = Path(__file__).resolve().parents[4] / "docs/site/variables.py"
spec = importlib.util.spec_from_file_location("variables", SOURCE)
variables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(variables)


def keys(kind: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, option in kind.get("options", {}).items():
        yield above + name
        yield from keys(option, above + name + "[].")


def test_the_page_is_what_the_specification_makes() -> None:
    assert variables.PAGE.read_text(encoding="utf-8") == variables.render(), "run make docs"


@pytest.mark.parametrize("name", VARIABLES)
def test_every_key_is_explained_and_no_other(name: str) -> None:
    assert sorted(VARIABLES[name].keys) == sorted(keys(VARIABLES[name].kind))


@pytest.mark.parametrize("name", [name for name, one in VARIABLES.items() if one.example and not one.extra])
def test_examples_are_accepted(name: str) -> None:
    example = yaml.safe_load(VARIABLES[name].example)
    assert list(example) == [name] and refusals(example) == []
