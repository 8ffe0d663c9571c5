# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import answers
from ansible_collections.baremetal.noiommu.tests.unit.plugins.plugin_utils.test_settings import REPO

KERNEL = "6.1.0-56-amd64"


@pytest.mark.parametrize(
    "result",
    [
        {"changed": True, "facts": {"a": 1}},
        {"ansible_facts": {}},
        {"ansible_facts": None},
        {"ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3"}},
    ],
)
def test_what_modules_answer(result: dict[str, Any]) -> None:
    assert answers.require_harmless(result) is result


@pytest.mark.parametrize(
    "result, said",
    [
        ({"ansible_facts": {"b": 1, "a": 1}}, "ansible_facts: a, b"),
        ({"ansible_facts": {"discovered_interpreter_python": "x", "a": 1}}, "ansible_facts: a"),
        ({"ansible_facts": "text"}, "ansible_facts: text"),
        ({"ansible_facts": 5}, "ansible_facts: 5"),
        ({"ansible_stats": {"data": {}}}, "ansible_stats: data"),
        ({"failed": True, "ansible_facts": {1: 1}}, "ansible_facts: 1"),
    ],
)
def test_what_decides_over_later_tasks(result: dict[str, Any], said: str) -> None:
    with pytest.raises(HostError) as caught:
        answers.require_harmless(result)
    assert caught.value.code == "answer" and caught.value.evidence == [said] and caught.value.remedy


def test_releases() -> None:
    assert answers.require_releases([KERNEL], "x") == [KERNEL]


@pytest.mark.parametrize("kernels", [None, "6.1.0", {"6.1.0": 1}, [None], ["6.1.0,x"], [KERNEL] * 101])
def test_no_releases(kernels: Any) -> None:
    with pytest.raises(HostError) as caught:
        answers.require_releases(kernels, "prebuilt_kernels")
    assert "prebuilt_kernels" in caught.value.evidence[0]


def test_reasons_are_bounded_and_say_whose_they_are() -> None:
    results = [
        {"item": "b", "failed_kernels": {KERNEL: ["x\n  y" + "z" * 1000, *["line"] * 1000]}},
        {"item": "c", "failed_kernels": {KERNEL: "no list"}},
        {"skipped": True},
        {"failed_kernels": None},
    ]
    found = answers.reasons(results)[KERNEL]
    assert len(found) == 13 and found[0].startswith("b: x yzz") and len(found[0]) < 420 and found[-1] == "c: no list"


def test_every_module_that_runs_on_hosts_has_its_answer_checked() -> None:
    modules = {path.stem for path in (REPO / "plugins/modules").glob("*.py")}
    plugins = {path.stem: path.read_text() for path in (REPO / "plugins/action").glob("*.py")}
    assert modules == set(plugins)
    for name, text in plugins.items():
        assert "(HostModule)" in text or "require_harmless" in text or "_requires_connection = False" in text, name
