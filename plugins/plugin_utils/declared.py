# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory declares is checked as a whole, under the operator's names, before any host is connected to.

The modules' own argument specifications say what is right. Ansible would check them too, but task by task in the middle
of a deploy, and without the name of the variable or the number of the entry.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import GRANTS_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import problems as access_problems
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import schema
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.schema import Problem, Schema
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.selectors import ELEMENT_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.sriov import ELEMENT_SPEC as SRIOV_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._hugepages.declared import MOUNTS_SPEC, POOLS_SPEC
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.acceptance import end_of

_BOOLEAN = {"type": "bool"}
_TEXT = {"type": "str"}
# By variable. Those that are not here are turned into text or handed to Ansible, whatever they are.
SPECS: dict[str, dict[str, Any]] = {
    "noiommu_accept_unsafe": _BOOLEAN,
    "noiommu_access": {"type": "dict", "options": GRANTS_SPEC},
    "noiommu_backend": {"type": "str", "choices": ["auto", "iommu", "builtin", "dkms"]},
    "noiommu_devices": ELEMENT_SPEC,
    "noiommu_dpdk_pa_hint": _BOOLEAN,
    "noiommu_enable_iommu": _BOOLEAN,
    "noiommu_host_memory": _TEXT,
    "noiommu_hugepage_mounts": MOUNTS_SPEC,
    "noiommu_hugepages": POOLS_SPEC,
    "noiommu_insecure_until": _TEXT,
    "noiommu_kmod_archive_keyring": _TEXT,
    "noiommu_kmod_archives": _TEXT,
    "noiommu_kmod_build": {"type": "str", "choices": ["on_host", "prebuilt"]},
    "noiommu_kmod_build_host": _TEXT,
    "noiommu_metrics_dir": _TEXT,
    "noiommu_reboot_ok": _BOOLEAN,
    "noiommu_report_dir": _TEXT,
    "noiommu_report_prune": _BOOLEAN,
    "noiommu_sriov": SRIOV_SPEC,
    "noiommu_state": {"type": "str", "choices": ["present", "absent"]},
}


def refusals(declared: Mapping[str, Any]) -> list[HostError]:
    """Refuse each variable whose value its module would not take. What is left empty declares nothing."""
    found = []
    for name, spec in SPECS.items():
        value = declared.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        wrong = schema.problems(value, _schema(spec), name)
        if not wrong and name in _MEANING:
            wrong = _MEANING[name](name, value)
        if wrong:
            found.append(refusal(name, [str(problem) for problem in wrong], _is_text_for_more(spec, value)))
    return found


def refusal(name: str, evidence: list[str], as_json: bool = False) -> HostError:
    """Return the refusal of one variable."""
    remedy = "Correct %s; docs/guide.md has an example of it." % name
    if as_json:
        remedy = (
            "Declare %s in the inventory, or give it as JSON: -e '{\"%s\": ...}'. Written as -e %s=... it is a text."
            % (name, name, name)
        )
    return HostError("declaration", "%s is not declared properly." % name, evidence, remedy)


def _is_text_for_more(spec: Mapping[str, Any], value: Any) -> bool:
    return isinstance(value, str) and spec["type"] in ("list", "dict")


def _wrong_date(name: str, value: Any) -> list[Problem]:
    try:
        end_of(str(value))
    except HostError:
        return [Problem(name, "expected the last day as YYYY-MM-DD, found %r" % (str(value),))]
    return []


def _wrong_grants(name: str, value: Any) -> list[Problem]:
    return list(access_problems(value, name))


# What a value of the right type can have wrong.
_MEANING = {"noiommu_insecure_until": _wrong_date, "noiommu_access": _wrong_grants}


# --- from Ansible's argument specifications to schemas, as lenient as Ansible is with types ---


def _schema(spec: Mapping[str, Any]) -> Schema:
    kind = spec.get("type", "str")
    if kind == "list":
        return _list(spec)
    if kind == "dict":
        return _options(spec)
    if "choices" in spec:
        return schema.choice(*spec["choices"])
    return {"bool": _boolean, "int": _whole}.get(kind, _text)


def _list(spec: Mapping[str, Any]) -> Schema:
    if spec["elements"] == "dict":
        return schema.items(_options(spec), "mappings")
    entries = schema.items(_schema({"type": spec["elements"]}))
    # Ansible takes a single value for a list of one, and splits a text at its commas.
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
