# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tags choose steps, with the checks always before them, or are refused."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.steps import STEPS, chosen, refused

ALL = list(STEPS)


@pytest.mark.parametrize(
    "run, skip, tags, expected",
    [
        (["all"], [], ["always"], ALL),
        ([], [], ["always"], ALL),
        (["hugepages"], [], ["always"], ["preflight", "hugepages"]),
        (["access", "devices"], [], ["always"], ["preflight", "devices", "access"]),
        (["preflight"], [], ["always"], ["preflight"]),
        (["all"], ["kmod"], ["always"], ["preflight", "hugepages", "devices", "access"]),
        (["all"], ["preflight"], ["always"], ALL),
        (["others"], [], ["always"], []),
        (["mine"], [], ["always", "mine"], ALL),
        (["mine", "devices"], ["kmod"], ["always", "mine"], ["preflight", "hugepages", "devices", "access"]),
        (["all"], [], ["always", "never", "mine"], []),
        (["mine"], [], ["always", "never", "mine"], ALL),
        (["tagged"], [], ["always"], ALL),
        (["all"], ["all"], ["always"], []),
    ],
)
def test_what_is_chosen(run: list[str], skip: list[str], tags: list[str], expected: list[str]) -> None:
    assert chosen({"ansible_run_tags": run, "ansible_skip_tags": skip}, tags) == expected


@pytest.mark.parametrize(
    "run, skip, known, said",
    [
        (["hugepage"], [], STEPS, "Write hugepages."),
        (["all"], ["kmodd"], STEPS, "Write kmod."),
        (["others"], [], STEPS, "Leave it out."),
        (["all"], ["preflight"], STEPS, "the checks are always made"),
        (["devices"], [], (), "this playbook does all or nothing"),
        (["always"], [], (), "this playbook does all or nothing"),
        (["all"], ["always"], STEPS, "the checks are always made"),
        (["all"], ["tagged"], (), "the checks are always made"),
        (["all"], ["all"], STEPS, "nothing would be done"),
        (["all"], ["all"], (), "nothing would be done"),
        (["always"], [], STEPS, "nothing would be done"),
        (["never"], [], STEPS, "nothing would be done"),
    ],
)
def test_what_is_refused(run: list[str], skip: list[str], known: tuple[str, ...], said: str) -> None:
    (refusal,) = refused({"ansible_run_tags": run, "ansible_skip_tags": skip}, ["always"], known)
    assert refusal.code == "tags" and said in str(refusal)


@pytest.mark.parametrize(
    "run, skip", [(["all"], []), (["devices", "kmod"], ["access"]), (["mine"], []), (["tagged"], [])]
)
def test_what_is_not(run: list[str], skip: list[str]) -> None:
    assert refused({"ansible_run_tags": run, "ansible_skip_tags": skip}, ["always", "mine"]) == []
