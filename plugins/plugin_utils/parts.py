# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables that add up: noiommu_devices and every noiommu_devices_NAME are one declaration, to which groups can add.

The plain variable comes first, then the others by name. Two that contradict each other are refused.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, Mapping

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.schema import Problem
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.hugetlb import parse_size
from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import VARIABLES

# By the names of the variables; of one only, its value is taken as it is.
Values = Mapping[str, Any]
_ONCE = ("group", "gid", "memlock", "hugetlbfs")  # of grants: there can be only one
_NAMED = {"services": "name", "binaries": "path"}


def whole_of(name: str) -> str | None:
    """Return the variable to which one of this name adds."""
    if name in VARIABLES:
        return None
    found = (whole for whole, variable in VARIABLES.items() if variable.adds_up and name.startswith(whole + "_"))
    return next((whole for whole in found if len(name) > len(whole) + 1), None)


def names_of(whole: str, names: Iterable[str]) -> list[str]:
    """Return those of the names that declare a variable, in the order in which they are added."""
    there = set(names)
    return [whole] * (whole in there) + sorted(name for name in there if whole_of(name) == whole)


def is_empty(value: Any) -> bool:
    """Whether a value declares nothing, not even that there is to be none."""
    return value is None or (isinstance(value, str) and not value.strip())


def add_up(whole: str, values: Values) -> Any:
    """Return what several variables declare together; None without any. Each fits the specification."""
    values = {name: values[name] for name in names_of(whole, values) if not is_empty(values[name])}
    if len(values) < 2:
        return next(iter(values.values()), None)
    if whole == "noiommu_access":
        return _grants(list(values.values()))
    entries = [entry for value in values.values() for entry in value]
    return _pools(entries) if whole == "noiommu_hugepages" else entries


def _pools(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pages are added: each group says what its own application needs."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for entry in entries:
        pool = (parse_size(entry["size"]), str(entry.get("node")))
        before = found.get(pool)
        found[pool] = {**before, "count": int(before["count"]) + int(entry["count"])} if before else entry
    return list(found.values())


def _grants(declared: list[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for grants in declared:
        found.update({key: grants[key] for key in _ONCE if grants.get(key) is not None})
        if grants.get("users"):
            found["users"] = list(dict.fromkeys([*found.get("users", []), *_texts(grants["users"])]))
        # What has no profile of its own has that of its own variable.
        usual = {key: grants[key] for key in ("profile", "capabilities") if grants.get(key) is not None}
        for option in _NAMED:
            entries = [{**usual, **_given(entry)} for entry in grants.get(option) or ()]
            if entries:
                found[option] = [*found.get(option, []), *entries]
    return found


def _given(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def _texts(value: Any) -> list[str]:
    texts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    return [str(text).strip() for text in texts]  # as Ansible reads a list that is written as a text


def contradictions(whole: str, values: Values) -> Iterator[Problem]:
    """Yield what two variables that add up say differently, or both, of one thing."""
    seen: dict[Any, str] = {}
    for name, value in values.items():
        found = list(_THINGS[whole](name, value))
        for place, thing, said in found:
            if thing in seen and said is None:
                yield Problem(place, "%s has it too: keep one of the two" % seen[thing])
            elif thing in seen and _said(values, seen[thing]) != str(said):
                yield Problem(place, "found %r, but %s says %r" % (said, seen[thing], _said(values, seen[thing])))
        # Two within one variable are the modules' own business.
        for place, thing, _said_here in found:
            seen.setdefault(thing, place)


def _said(values: Values, place: str) -> str:
    name, _dot, key = place.partition(".")
    return str(values[name][key])


# Where, which thing, and what is said of it; None where a thing must not be in two variables at all.
_Thing = tuple[str, Any, Any]


def _devices(name: str, entries: list[Mapping[str, Any]]) -> Iterator[_Thing]:
    for number, entry in enumerate(entries):
        named = {key: str(value).lower() for key, value in entry.items() if value is not None and key != "count"}
        yield "%s[%d]" % (name, number), tuple(sorted(named.items())), None


def _by(key: str) -> Callable[[str, list[Mapping[str, Any]]], Iterator[_Thing]]:
    def things(name: str, entries: list[Mapping[str, Any]]) -> Iterator[_Thing]:
        for number, entry in enumerate(entries):
            yield "%s[%d]" % (name, number), str(entry[key]).lower(), None

    return things


def _of_grants(name: str, grants: Mapping[str, Any]) -> Iterator[_Thing]:
    for key in _ONCE:
        if grants.get(key) is not None:
            yield "%s.%s" % (name, key), key, grants[key]
    for option, key in _NAMED.items():
        for number, entry in enumerate(grants.get(option) or ()):
            yield "%s.%s[%d]" % (name, option, number), (option, str(entry[key])), None


_THINGS: dict[str, Callable[[str, Any], Iterator[_Thing]]] = {
    "noiommu_access": _of_grants,
    "noiommu_devices": _devices,
    "noiommu_hugepage_mounts": _by("path"),
    "noiommu_hugepages": lambda name, pools: iter(()),
    "noiommu_sriov": _by("pf"),
}
