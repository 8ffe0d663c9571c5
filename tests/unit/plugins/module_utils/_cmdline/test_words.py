# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with boot parameters from the start."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.words import (
    Parameters,
    effective,
    parse,
    split,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.boot_parameters import (
    run,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import (
    FakeGrub,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def test_no_known_boot_loader(tree: Tree) -> None:
    boot = FakeGrub(tree)
    tree.remove("/usr/sbin/update-grub")
    with pytest.raises(HostError) as caught:
        run(boot, "a=1")
    assert "no update-grub" in caught.value.evidence[0] and "by hand" not in caught.value.message
    assert not run(boot, state="absent")["changed"]


@pytest.mark.parametrize(
    ("parameters", "evidence"),
    [
        (["a=$(reboot)"], "a boot loader or a shell"),
        (['a="b c"'], "a boot loader or a shell"),
        (["a=b;c"], "a boot loader or a shell"),
        ([""], "a boot loader or a shell"),
        ("a=1", "a list of strings or a dictionary"),
        ({"intel_iommu": True}, "YAML made a truth value of it"),
        (["quiet", "splash"], "wanted and unwanted at once"),
    ],
)
def test_parameters_that_would_not_arrive_unchanged(parameters: Any, evidence: str) -> None:
    with pytest.raises(HostError) as caught:
        parse(parameters, ["splash"])
    assert evidence in caught.value.evidence[0] and caught.value.remedy


def test_a_dictionary() -> None:
    assert parse({"intel_iommu": "on", "nosmt": None, "hugepages": 4}, []).words == [
        "intel_iommu=on",
        "nosmt",
        "hugepages=4",
    ]


def test_a_set_needs_a_name(tree: Tree) -> None:
    with pytest.raises(HostError, match="cannot name a set"):
        run(FakeGrub(tree), "a=1", name="../x")


def test_several_values_of_one_name_may_all_be_wanted() -> None:
    declared = Parameters(["console=tty0", "console=ttyS0"])
    assert all(effective(declared.words, parameter, declared) for parameter in declared.parameters)
    assert not effective(split("console=tty0 console=hvc0"), "console=tty0", declared)
