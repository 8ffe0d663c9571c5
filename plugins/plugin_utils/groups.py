# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the inventory sets a variable so that it has no effect, or an effect that nobody has decided on.

Ansible tells a plugin what a variable is, and not where it is from: that is asked of the inventory behind hostvars. If
a version of Ansible does not have it there, nothing is refused here.
"""

from __future__ import annotations

import itertools
from typing import Any, Mapping

from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.parts import whole_of
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import VARIABLES

# Those that take something from a host, or accept a danger, if the wrong group wins. Others follow Ansible's order.
_DECIDE = ("noiommu_accept_unsafe", "noiommu_state")


def contested(variables: Mapping[str, Any], task: Any = None) -> list[HostError]:
    """Refuse what two groups of a host set differently, where only the order of their names says which one counts.

    What the host, the run, or the play and the blocks of the ``task`` set is decided, whatever groups say.
    """
    names = [name for name in variables if _is_exclusive(name)]
    inventory = _Inventory.of(variables) if names else None
    if inventory is None or len(inventory.groups) < 2:
        return []
    rivals = {name: inventory.rivals(name) for name in sorted(names)}
    # A value that no group has was set where groups do not count.
    found = {name: values for name, values in rivals.items() if values and variables[name] in values.values()}
    decided = inventory.set_by_play(task) if found and task is not None else set()
    return [_refusal(name, values) for name, values in found.items() if name not in decided]


def misplaced(variables: Mapping[str, Any]) -> list[HostError]:
    """Refuse in the inventory what Ansible reads before it knows any host's variables."""
    names = [name for name, variable in VARIABLES.items() if variable.extra and name in variables]
    inventory = _Inventory.of(variables) if names else None
    return [
        HostError(
            "declaration",
            "%s has no effect in the inventory: Ansible fixes the batches before it reads any host's variables." % name,
            ["%s: %s" % (name, variables[name])],
            "Give it as an extra variable: -e '{\"%s\": ...}'." % name,
        )
        for name in names
        if inventory is not None and inventory.sets(name)
    ]


def _is_exclusive(name: str) -> bool:
    return name in _DECIDE or whole_of(name) is not None or (name in VARIABLES and VARIABLES[name].adds_up)


class _Inventory:
    """The groups of one host, and what each of them sets."""

    def __init__(self, hostvars: Any, host: Any) -> None:
        self._hostvars, self._host = hostvars, host
        self.groups = [group for group in host.get_groups() if group.name != "all"]

    @classmethod
    def of(cls, variables: Mapping[str, Any]) -> _Inventory | None:
        """Return the inventory that a host's variables are from."""
        hostvars = variables.get("hostvars")
        if not all(hasattr(hostvars, name) for name in ("_inventory", "_loader", "_variable_manager")):
            return None
        host = hostvars._inventory.get_host(variables["inventory_hostname"])
        return None if host is None else cls(hostvars, host)

    def rivals(self, name: str) -> dict[str, Any]:
        """Return the different values that groups give a variable of which no group is inside the others."""
        if name in self._hostvars._variable_manager.extra_vars:
            return {}
        found = {group: declared[name] for group in self.groups if name in (declared := self._vars(group))}
        above = {ancestor.name for group in found for ancestor in group.get_ancestors()}
        rivals = {group: value for group, value in found.items() if group.name not in above}
        if not any(_collide(*pair) for pair in itertools.combinations(rivals.items(), 2)):
            return {}
        return {} if name in self._vars(self._host) else {group.name: value for group, value in rivals.items()}

    def set_by_play(self, task: Any) -> set[str]:
        """Return what the play, its files, a block or the task sets, and what the run has set for the host."""
        manager, play = self._hostvars._variable_manager, _play_of(task)
        found = set(task.get_vars())
        if play is not None:
            found.update(manager.get_vars(play=play, include_hostvars=False))
        for cache in ("_nonpersistent_fact_cache", "_vars_cache"):
            found.update(getattr(manager, cache, {}).get(self._host.name) or ())
        return found

    def sets(self, name: str) -> bool:
        """Whether the inventory sets a variable that is not an extra variable as well."""
        extra = self._hostvars._variable_manager.extra_vars
        entities = (self._host, *self._host.get_groups())
        return name not in extra and any(name in self._vars(entity) for entity in entities)

    def _vars(self, entity: Any) -> dict[str, Any]:
        """What the inventory, and the files beside it and beside the playbook, say of a group or of the host."""
        loader, sources = self._hostvars._loader, self._hostvars._inventory._sources
        return {
            **entity.vars,
            **get_vars_from_inventory_sources(loader, sources, [entity], "task"),
            **get_vars_from_path(loader, loader.get_basedir(), [entity], "task"),
        }


def _play_of(task: Any) -> Any:
    while task is not None and not hasattr(task, "_play"):
        task = getattr(task, "_parent", None)
    return getattr(task, "_play", None)


def _collide(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether two groups differ, and no ansible_group_priority decides between them."""
    (group, value), (second, its_value) = one, other
    is_decided = group.depth == second.depth and group.priority != second.priority
    return bool(value != its_value) and not is_decided


def _refusal(name: str, values: Mapping[str, Any]) -> HostError:
    groups = sorted(values)
    otherwise = "et it for the host, or in a group that is inside the others."
    remedy = "S" + otherwise
    whole = whole_of(name) or name
    if whole in VARIABLES and VARIABLES[whole].adds_up:
        own = " and ".join("%s_%s" % (whole, "".join(c if c.isalnum() else "_" for c in group)) for group in groups)
        remedy = "Give each group a variable of its own, as %s: they add up. Or s%s" % (own, otherwise)
    return HostError(
        "contested_variable",
        "%s is set by the groups %s, and only one of them would count." % (name, ", ".join(groups)),
        ["group %s: %s" % (group, _brief(values[group])) for group in groups],
        remedy,
    )


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:60] + "..."
