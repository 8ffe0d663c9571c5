# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory sets in the wrong group or the wrong place. The inventories are real, and Ansible reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.groups import contested, misplaced

ONE, OTHER = [{"slot": 1}], [{"slot": 2}]


def variables(path: Path, groups: dict[str, Any], extra: dict[str, Any] | None = None, **host: Any) -> dict[str, Any]:
    """Return what a task sees of the host ``edge``, which is in all these groups."""
    hosts = {"edge": host}
    inventory = {name: {**group, "hosts": {"edge": {}}} for name, group in groups.items()}
    (path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "children": inventory}}))
    loader = DataLoader()
    loader.set_basedir(str(path))
    manager = InventoryManager(loader, [str(path / "hosts.yml")])
    known = VariableManager(loader, manager)
    known._extra_vars = extra or {}
    hostvars = HostVars(manager, known, loader)
    return {**known.get_vars(host=manager.get_host("edge")), "hostvars": hostvars}


def group(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"vars": {name: value}, **more}


@pytest.mark.parametrize(
    "name, values",
    [
        ("noiommu_devices", (ONE, OTHER)),
        ("noiommu_devices", (ONE, [])),
        ("noiommu_devices_dpdk", (ONE, OTHER)),
        ("noiommu_access", ({"group": "g"}, {"group": "h"})),
        ("noiommu_state", ("present", "absent")),
        ("noiommu_accept_unsafe", (True, False)),
    ],
)
def test_two_groups_that_differ_are_refused(tmp_path: Path, name: str, values: tuple[Any, Any]) -> None:
    (refusal,) = contested(variables(tmp_path, {"net": group(name, values[0]), "sto-1": group(name, values[1])}))
    assert refusal.code == "contested_variable" and refusal.message.startswith(
        name + " is set by the groups net, sto-1"
    )
    assert refusal.evidence[0].startswith("group net: ")
    adds_up = name.startswith(("noiommu_devices", "noiommu_access")) and name != "noiommu_accept_unsafe"
    assert adds_up == ("_net and noiommu_" in refusal.remedy and "_sto_1: they add up" in refusal.remedy)


def test_files_of_groups_count_as_well(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/net.yml").write_text(json.dumps({"noiommu_devices": ONE}))
    groups = {"net": {}, "sto": group("noiommu_devices", OTHER)}
    assert [refusal.code for refusal in contested(variables(tmp_path, groups))] == ["contested_variable"]


NESTED = {"net": group("noiommu_devices", ONE, children={"sto": group("noiommu_devices", OTHER, hosts={"edge": {}})})}
BOTH = {"net": group("noiommu_devices", ONE), "sto": group("noiommu_devices", OTHER)}


@pytest.mark.parametrize(
    "groups, more",
    [
        ({"net": group("noiommu_devices", ONE)}, {}),
        ({"net": group("noiommu_devices", ONE), "sto": group("noiommu_devices", ONE)}, {}),
        ({"net": group("noiommu_devices", ONE), "sto": group("noiommu_devices_x", OTHER)}, {}),
        ({"net": group("noiommu_backend", "dkms"), "sto": group("noiommu_backend", "auto")}, {}),
        ({"net": group("their_devices", ONE), "sto": group("their_devices", OTHER)}, {}),
        (NESTED, {}),
        (BOTH, {"noiommu_devices": OTHER}),
        (BOTH, {"extra": {"noiommu_devices": []}}),
        ({**BOTH, "net": {"vars": {**BOTH["net"]["vars"], "ansible_group_priority": 5}}}, {}),
    ],
)
def test_what_is_decided_is_accepted(tmp_path: Path, groups: dict[str, Any], more: dict[str, Any]) -> None:
    assert contested(variables(tmp_path, groups, **more)) == []


def test_batches_in_the_inventory_are_refused(tmp_path: Path) -> None:
    (refusal,) = misplaced(variables(tmp_path, {"net": group("noiommu_batches", [1, "100%"])}))
    assert "noiommu_batches has no effect in the inventory" in refusal.message and "-e '{" in refusal.remedy
    assert misplaced(variables(tmp_path, {}, noiommu_max_fail_percentage=5))
    assert misplaced(variables(tmp_path, {"net": {}}, extra={"noiommu_batches": [1]})) == []
    # In a play's own variables they work.
    assert misplaced({**variables(tmp_path, {"net": {}}), "noiommu_batches": [1]}) == []


def test_without_an_inventory_to_ask_nothing_is_refused() -> None:
    known = {"noiommu_devices": ONE, "noiommu_batches": [1], "hostvars": {}, "inventory_hostname": "edge"}
    assert contested(known) == [] == misplaced(known)
