# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import settings

REPO = Path(__file__).resolve().parents[4]


def test_facts_of_other_names_are_nobodys_business() -> None:
    facts = {"devices": {"sda": {}}, "kernel": "6.1.0", "discovered_interpreter_python": "/usr/bin/python3"}
    for variables in ({}, {"ansible_facts": {}}, {"ansible_facts": facts}, {"ansible_facts": None}):
        assert settings.facts_override(variables) == []
        settings.require_no_override(variables)


def test_facts_with_names_of_ours_are_refused_all_at_once() -> None:
    facts = {"noiommu_report_dir": "/x", "kmod_source": "/etc", "system": "Linux"}
    (error,) = settings.facts_override({"ansible_facts": facts})
    assert error.code == "facts_override" and error.evidence == ["ansible_facts: kmod_source, noiommu_report_dir"]
    assert error.remedy
    with pytest.raises(HostError):
        settings.require_no_override({"ansible_facts": facts})


def test_every_variable_of_the_roles_and_playbooks_is_known_as_ours() -> None:
    names = set()
    for path in [*REPO.glob("roles/*/*/*.yml"), *REPO.glob("playbooks/**/*.yml")]:
        text = path.read_text()
        names |= set(re.findall(r"^\s*(?:- )?register: (\w+)", text, re.MULTILINE))
        if path.parent.name in ("defaults", "vars"):
            names |= set(re.findall(r"^(\w+):", text, re.MULTILINE))
    names = {name for name in names if not name.startswith(settings.PREFIX)}
    assert len(names) > 40 and names <= settings.INTERNAL
    assert settings.foreign_facts({"ansible_facts": {"devices_by_rack": [], "access_level": 1}}) == []


@pytest.mark.parametrize("value, expected", [("fact", True), ("registered", False)])
def test_where_a_value_is_from(value: str, expected: bool) -> None:
    assert settings.is_fact({"x": value, "ansible_facts": {"x": "fact"}}, "x") is expected
    assert not settings.is_fact({"x": value}, "x") and not settings.is_fact({"ansible_facts": {"x": 1}}, "x")


@pytest.mark.parametrize(
    "declared, known",
    [
        ({}, True),
        ({"noiommu_kmod_build_host": ""}, True),
        ({"noiommu_kmod_build_host": "b"}, True),
        ({"noiommu_kmod_build_host": "localhost"}, False),
        ({"noiommu_kmod_build_host": "127.0.0.1"}, False),
    ],
)
def test_a_build_host_is_a_host_of_the_inventory(declared: dict[str, Any], known: bool) -> None:
    variables = {"inventory_hostname": "a", "hostvars": {"a": declared}, "groups": {"all": ["a", "b"]}}
    found = settings.unknown_build_host(variables)
    assert [error.code for error in found] == ([] if known else ["build_host_unknown"])
    variables["groups"] = {"all": ["a", "b", "localhost", "127.0.0.1"]}
    assert settings.unknown_build_host(variables) == []
