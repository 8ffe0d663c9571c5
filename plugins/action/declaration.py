# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check what a host's variables declare before connecting to it. Does nothing on the host."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError, Refused
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import declared, groups, parts, steps
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.settings import facts_override
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import VARIABLES
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.variables import unknown_names

# Each gets all variables of a host and returns what is wrong with them.
CHECKS: tuple[Callable[[Mapping[str, Any]], list[HostError]], ...] = (
    facts_override,
    unknown_names,
    groups.misplaced,
)

_PLAYBOOKS = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", "playbooks"))


class ActionModule(ActionBase):
    """Looks at the variables of the host as the task sees them, wherever they were set."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Report everything that is wrong at once."""
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(
            {
                "refuse": {"type": "bool", "default": True},
                "tags": {"type": "str", "choices": ["any", "steps", "none"], "default": "any"},
            }
        )
        variables = task_vars or {}
        chosen = steps.chosen(variables, self._task.tags)
        problems = self._refused_tags(args["tags"], variables)
        if problems:  # whoever gives everything back did not mean this either
            return {"failed": True, **Refused(problems).as_failure()}
        if not chosen:
            return {"changed": False, "steps": []}
        problems = [problem for check in CHECKS for problem in check(variables)]
        problems += groups.contested(variables, self._task)
        if not problems:  # a value may be a template that uses a variable which has just been refused
            problems = self._refused_values(variables)
        if not problems:
            return {"changed": False, "steps": chosen}
        if args["refuse"]:
            return {"failed": True, **Refused(problems).as_failure()}
        return {"changed": False, "steps": chosen, "warnings": [str(problem) for problem in problems]}

    def _refused_tags(self, which: str, variables: Mapping[str, Any]) -> list[HostError]:
        """Refuse tags that choose nothing, where the playbook was named on the command line and not imported."""
        if which == "any" or not any(map(_is_ours, context.CLIARGS.get("args") or ())):
            return []
        return steps.refused(variables, self._task.tags, steps.STEPS if which == "steps" else ())

    def _refused_values(self, variables: Mapping[str, Any]) -> list[HostError]:
        values, problems = {}, []
        for name in filter(lambda name: name in VARIABLES or parts.whole_of(name), variables):
            try:
                values[name] = self._templar.template(variables[name])
            except AnsibleError as exc:
                problems.append(declared.refusal(name, ["%s: %s" % (name, exc)]))
        return problems + declared.refusals(values)


def _is_ours(playbook: str) -> bool:
    """Whether a playbook of the command line is one of the collection's, by its name or its path."""
    path = os.path.realpath(playbook)
    return playbook.startswith("baremetal.noiommu.") or os.path.dirname(path) == _PLAYBOOKS
