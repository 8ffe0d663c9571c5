# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module documents is what it takes; ansible-test compares the rest."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

MODULES = (
    "dataplane_access",
    "declaration",
    "dkms_module",
    "fleet_report",
    "host_report",
    "hugepages",
    "kernel_cmdline",
    "kernel_taint_info",
    "noiommu_info",
    "vfio_binding",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_valid_tasks_that_use_documented_options(name: str) -> None:
    module = importlib.import_module("ansible_collections.baremetal.noiommu.plugins.modules." + name)
    options = yaml.safe_load(module.DOCUMENTATION).get("options", {})
    full_name = "baremetal.noiommu." + name
    used = [task[full_name] or {} for task in yaml.safe_load(module.EXAMPLES) if full_name in task]
    assert used
    for arguments in used:
        assert set(arguments) <= set(options)


@pytest.mark.parametrize("name", MODULES)
def test_defaults_are_documented(name: str) -> None:
    module = importlib.import_module("ansible_collections.baremetal.noiommu.plugins.modules." + name)
    options = yaml.safe_load(module.DOCUMENTATION).get("options", {})
    for option, spec in getattr(module, "ARGUMENTS", {}).items():
        assert options[option].get("default") == spec.get("default")


def test_every_module_is_in_the_action_group() -> None:
    root = Path(__file__).resolve().parents[4]
    runtime = yaml.safe_load((root / "meta/runtime.yml").read_text(encoding="utf-8"))
    assert runtime["action_groups"] == {
        "noiommu": sorted(path.stem for path in (root / "plugins/modules").glob("*.py"))
    }
