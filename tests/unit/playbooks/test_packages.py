# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role kmod does where packages cannot be installed at once, by the real playbook."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.tests.report import fleet as reported
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.fleet import Answers, Fleet, Played

NEEDED, LATER = "linux-headers-6.1.0-56-amd64", "linux-headers-amd64"
NO_PACKAGE = {"failed": True, "msg": "No package matching it is available"}


def answers(*apt: tuple[str, dict[str, object]]) -> Answers:
    info = {
        **reported.answers()["preflight_info"],
        "prebuilt_kernels": [],
        "packages_missing": [NEEDED, LATER],
        "recorded": {},
        "iommu_boot": {"recorded": False, "pending": False, "parameters": [], "without": []},
    }
    return {"noiommu_info": [("", info)], "apt": list(apt)}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    fine = ("", {"changed": True})
    fleet.add("whole", answers(fine))
    fleet.add("fresh", answers(('"update_cache": true', {"changed": True}), ("", NO_PACKAGE)))
    fleet.add("flavourless", answers(('"%s"' % LATER, NO_PACKAGE), fine))
    fleet.add("cut_off", answers(("", NO_PACKAGE)))
    return fleet.play("deploy", noiommu_accept_unsafe=True)


def tries(played: Played, host: str) -> list[str]:
    return [line for line in played.asked[host] if line.startswith("apt ")]


def test_packages_that_can_be_had_are_installed_at_once(played: Played) -> None:
    (first,) = tries(played, "whole")
    assert NEEDED in first and LATER in first and '"update_cache": true' not in first


def test_a_fresh_image_gets_its_package_lists(played: Played) -> None:
    assert ['"update_cache": true' in line for line in tries(played, "fresh")] == [False, True]
    assert any(line.startswith("dkms_module") for line in played.asked["fresh"]), played.text


def test_headers_of_kernels_to_come_stop_nothing(played: Played) -> None:
    last = tries(played, "flavourless")[-1]
    assert NEEDED in last and '"%s"' % LATER not in last
    assert any(line.startswith("dkms_module") for line in played.asked["flavourless"]), played.text


def test_what_cannot_be_had_is_explained(played: Played) -> None:
    said = " ".join(played.said_of("cut_off").split())
    assert "also after the package lists were refreshed (No package matching it is available)" in said
    assert "must match the running kernel" in said and LATER + " could" not in said
    assert not any(line.startswith("dkms_module") for line in played.asked["cut_off"])
