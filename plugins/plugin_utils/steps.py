# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which steps of a deploy --tags and --skip-tags choose.

The steps are in files that are included for each host, and Ansible hands no tags on to those. So the tasks are always
reached, and ask what is said here.
"""

from __future__ import annotations

import difflib
from typing import Any, Iterable, Mapping

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError

PREFLIGHT = "preflight"
STEPS = (PREFLIGHT, "kmod", "hugepages", "devices", "access")
_OF_ANSIBLE = ("all", "always", "never", "tagged")
_CHECKS = (PREFLIGHT, "always", "tagged")  # whoever skips one of these would skip the checks


def chosen(variables: Mapping[str, Any], tags: Iterable[str]) -> list[str]:
    """Return the steps to take; ``tags`` are those of the task that asks, with what its role and its play have."""
    run, skip = _lists(variables)
    if "all" in skip:  # Ansible runs tasks that are always run all the same
        return []
    # What somebody tags the role with means all of it.
    others = set(tags) - {*STEPS, "always", "never"}
    if others.intersection(run) or ("never" not in tags and {"all", "tagged"}.intersection(run)):
        found = list(STEPS)
    else:
        found = [step for step in STEPS if step in run]
        found = [PREFLIGHT, *found] if found and found[0] != PREFLIGHT else found
    return [step for step in found if step == PREFLIGHT or step not in skip]


def refused(variables: Mapping[str, Any], tags: Iterable[str], known: Iterable[str] = STEPS) -> list[HostError]:
    """Refuse tags of the command line that choose nothing here; ``known`` are those that do."""
    run, skip = _lists(variables)
    fine = {*known, *_OF_ANSIBLE, *tags}
    # Where no task but that of the declaration has a tag, any choice leaves out the rest.
    chosen_by = fine if known else {"all", *tags} - {"always"}
    found = [_refusal("--tags", tag, known) for tag in run if tag not in chosen_by]
    found += [_refusal("--skip-tags", tag, known) for tag in skip if tag not in fine or tag in ("all", *_CHECKS)]
    if not found and known and not chosen(variables, tags):
        found = [_refusal("--tags", tag, known) for tag in run]
    return found


def _lists(variables: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    run, skip = (list(map(str, variables.get("ansible_%s_tags" % kind) or [])) for kind in ("run", "skip"))
    return run or ["all"], skip


def _refusal(option: str, tag: str, known: Iterable[str]) -> HostError:
    nearest = difflib.get_close_matches(tag, [] if tag in (*_CHECKS, *_OF_ANSIBLE) else known, 1)
    why = "there is no such tag"
    if option == "--skip-tags" and tag in _CHECKS:
        why = "the checks are always made"
    elif tag in _OF_ANSIBLE:
        why = "nothing would be done"
    there = ", ".join(known) or "none: this playbook does all or nothing"
    return HostError(
        "tags",
        "%s %s: %s." % (option, tag, why),
        ["tags of this playbook: " + there],
        "Write %s." % nearest[0] if nearest else "Leave it out.",
    )
