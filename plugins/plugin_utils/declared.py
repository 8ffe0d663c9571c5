# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check everything that an inventory declares, under the operator's names, before connecting to any host.

The specification says what is right, and the code for hosts what no host can have. Ansible would check types too, but
task by task in the middle of a deploy, and without the name of the variable or the number of the entry.
"""

from __future__ import annotations

import difflib
from typing import Any, Callable, Iterator, Mapping

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import problems as access_problems
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import schema
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.schema import Problem, Schema
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.entries import problems as device_problems
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.vf_settings import problems as vf_problems
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import mount_problems, pool_problems
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.floor import parse_floor
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.acceptance import end_of
from ansible_collections.baremetal.noiommu.plugins.plugin_utils import parts
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import VARIABLES

_PREFIX = "noiommu_"
_ALIKE = 0.8  # how alike the rest of two names has to be (1: the same) where the value is wrong for the one
_SHOWN = 60


def refusals(declared: Mapping[str, Any]) -> list[HostError]:
    """Refuse each variable whose value its module would not accept. An empty one declares nothing."""
    found = []
    for name, variable in VARIABLES.items():
        values = {part: declared[part] for part in parts.names_of(name, declared)} if variable.adds_up else {}
        values = values or {name: declared.get(name)}
        wrong = {part: _wrong(name, part, value) for part, value in values.items()}
        if variable.adds_up and not any(wrong.values()):
            wrong = _wrong_together(name, {part: value for part, value in values.items() if not parts.is_empty(value)})
        found += [_refusal(part, variable.kind, values[part], said) for part, said in wrong.items() if said]
    return found


def _wrong(name: str, part: str, value: Any) -> list[Problem]:
    """Return what is wrong with one variable by itself."""
    if not parts.is_empty(value):
        wrong = schema.problems(value, _schema(VARIABLES[name].kind), part)
        is_alone = name in _MEANING and not VARIABLES[name].adds_up
        return list(_MEANING[name](value, part)) if is_alone and not wrong else wrong
    # Left empty, the variable of one group would take away what is from this group, and from no other.
    return [] if part == name else [Problem(part, "is left empty: write [] or {} if it adds nothing")]


def _wrong_together(name: str, values: Mapping[str, Any]) -> dict[str, list[Problem]]:
    """Return by variable what is wrong where all of them are taken together."""
    found: dict[str, list[Problem]] = {part: [] for part in values}
    # Only this one adds up before its values are known to be right.
    group = (parts.add_up(name, values) or {}).get("group") if name == "noiommu_access" else None
    for part, value in values.items():
        # One of them names the group.
        is_grants = name == "noiommu_access" and value
        found[part] += list(_MEANING[name]({**value, "group": group} if is_grants else value, part))
    if not any(found.values()):
        for problem in parts.contradictions(name, values):
            found[problem.where.partition("[")[0].partition(".")[0]].append(problem)
    return found


def _refusal(name: str, kind: Mapping[str, Any], value: Any, wrong: list[Problem]) -> HostError:
    as_json = isinstance(value, str) and kind["type"] in ("list", "dict")
    return refusal(name, [str(problem) for problem in wrong], value, as_json)


def refusal(name: str, evidence: list[str], value: Any = "...", as_json: bool = False) -> HostError:
    """Return the refusal of one variable."""
    whole = parts.whole_of(name)
    meant = _meant(name, whole, value) if whole else ""
    remedy = "Correct %s; docs/variables.md says what it may be." % name
    if meant:
        remedy = meant
    elif as_json:
        remedy = (
            "Declare %s in the inventory, or give it as JSON: -e '{\"%s\": ...}'. Written as -e %s=... it is a text."
            % (name, name, name)
        )
    if whole:
        remedy += " %s adds to %s, as every %s_NAME does." % (name, whole, whole)
    return HostError("declaration", "%s is not declared properly." % name, evidence, remedy)


def _meant(name: str, whole: str, value: Any) -> str:
    """Say what somebody meant who took the ending of a name for a key, or misspelt another name."""
    kind, key = VARIABLES[whole].kind, name[len(whole) + 1 :]
    if key in kind["options"]:
        inside = "%s: %s" % (key, str(value)[:_SHOWN])
        return "Write %s: %s." % (whole, "{%s}" % inside if kind["type"] == "dict" else "[{%s, ...}]" % inside)
    others = {variable[len(_PREFIX) :]: variable for variable in VARIABLES if variable != whole}
    nearest = [key] if key in others else difflib.get_close_matches(name[len(_PREFIX) :], others, 1, _ALIKE)
    return "Write %s if that is meant." % others[nearest[0]] if nearest else ""


def _wrong_date(value: Any, name: str) -> Iterator[Problem]:
    try:
        end_of(str(value))
    except HostError:
        yield schema.expected("the last day as YYYY-MM-DD", str(value), name)


def _wrong_size(value: Any, name: str) -> Iterator[Problem]:
    try:
        parse_floor(value)
    except HostError as exc:
        yield schema.refused(exc, name)


def _wrong_functions(value: Any, name: str) -> Iterator[Problem]:
    wrong = list(device_problems(value, name))
    yield from wrong
    for position, entry in enumerate([] if wrong else value):
        where = "%s[%d].functions" % (name, position)
        yield from vf_problems(entry.get("functions") or [], int(entry["vfs"]), where)


# What a value of the right kind can have wrong on any host.
_MEANING: dict[str, Callable[[Any, str], Iterator[Problem]]] = {
    "noiommu_access": access_problems,
    "noiommu_devices": device_problems,
    "noiommu_host_memory": _wrong_size,
    "noiommu_hugepage_mounts": mount_problems,
    "noiommu_hugepages": pool_problems,
    "noiommu_insecure_until": _wrong_date,
    "noiommu_sriov": _wrong_functions,
}


# --- from Ansible's argument specifications to schemas, as lenient as Ansible is with types ---


def _schema(spec: Mapping[str, Any]) -> Schema:
    kind = spec.get("type", "str")
    if kind == "list":
        return _list(spec)
    if kind == "dict":
        return _options(spec)
    if "choices" in spec:
        return schema.choice(*spec["choices"])
    return {"bool": _boolean, "int": _whole, "raw": schema.anything(), "scalar": _scalar}.get(kind, _text)


def _list(spec: Mapping[str, Any]) -> Schema:
    if spec["elements"] == "dict":
        return schema.items(_options(spec), "mappings")
    entries = schema.items(_schema({"type": spec["elements"]}))
    # Ansible accepts a single value as a list of one, and splits a text at its commas.
    return lambda value, where: entries([value] if isinstance(value, (str, int, float)) else value, where)


def _options(spec: Mapping[str, Any]) -> Schema:
    kinds = {name: schema.nullable(_schema(option)) for name, option in spec["options"].items()}
    required = {name: kinds[name] for name, option in spec["options"].items() if option.get("required")}
    keys = schema.fields(required, {name: kind for name, kind in kinds.items() if name not in required})

    def check(value: Any, where: str) -> Iterator[Problem]:
        wrong = schema.problems(value, keys, where)
        yield from wrong
        if not wrong:
            yield from _relations(spec, {name for name in value if value[name] is not None}, where)

    return check


def _relations(spec: Mapping[str, Any], given: set[str], where: str) -> Iterator[Problem]:
    for names in spec.get("mutually_exclusive", ()):
        both = [name for name in names if name in given]
        if len(both) > 1:
            yield Problem(where, "%s cannot be in one entry" % " and ".join(both))
    for names in spec.get("required_one_of", ()):
        if not given.intersection(names):
            yield Problem(where, "needs one of " + ", ".join(names))
    for name, needed in spec.get("required_by", {}).items():
        if name in given and not given.issuperset(needed):
            yield Problem(where, "%s needs %s" % (name, ", ".join(needed)))


def _text(value: Any, where: str) -> Iterator[Problem]:
    if isinstance(value, (bool, Mapping, list, tuple)):
        yield schema.expected("a text", value, where)


def _scalar(value: Any, where: str) -> Iterator[Problem]:
    if isinstance(value, (Mapping, list, tuple)):
        yield schema.expected("a text", value, where)


def _whole(value: Any, where: str) -> Iterator[Problem]:
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        int(value)
    except (TypeError, ValueError):
        yield schema.expected("a whole number", value, where)


def _boolean(value: Any, where: str) -> Iterator[Problem]:
    try:
        boolean(value)
    except TypeError:
        yield schema.expected("true or false", value, where)
