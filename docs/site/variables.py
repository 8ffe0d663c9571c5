# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/variables.md from the specification of the public variables."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Iterator, Mapping

from ansible_collections.baremetal.noiommu.plugins.plugin_utils.specification import SECTIONS, Variable

PAGE = Path(__file__).resolve().parents[1] / "variables.md"
HEAD = """\
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<!-- Made by docs/site/variables.py from plugins/plugin_utils/specification.py: change that, then run `make docs`. -->
# Variables

Everything is declared in these variables, in the inventory or in `group_vars`. Names that begin with `noiommu_` are
reserved for them. Names and values are checked on the control node before a host is contacted: see
[misspelt and missing variables](guide.md#misspelt-and-missing-variables).
"""
_KINDS = {"bool": "true or false", "date": "date, `YYYY-MM-DD`", "size": "size, such as `2G`", "int": "whole number"}
_KINDS_OF_ENTRIES = {"dict": "list of mappings", "str": "list of texts"}

_EXTRA = " This is an extra variable (`-e`): Ansible needs it before it reads any host's own variables."


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, variables in SECTIONS.items():
        rows = ["| [`%s`](#%s) | %s |\n" % (name, name, one.summary) for name, one in variables.items()]
        parts.append("\n## %s\n\n| variable | meaning |\n|---|---|\n" % title + "".join(rows))
        parts += [_entry(name, one) for name, one in variables.items()]
    return "".join(parts)


def _entry(name: str, variable: Variable) -> str:
    text = variable.summary + (_EXTRA if variable.extra else "")
    facts = ["Type: %s." % _kind(variable.kind), "Default: %s." % (variable.default or "none")]
    parts = ["\n### %s\n" % name, _wrapped(" ".join(facts)), _wrapped(" ".join(filter(None, (text, variable.more))))]
    if variable.adds_up:
        parts.append(
            _wrapped(
                "Groups add to it by variables of their own, such as `%s_storage`: see "
                "[groups add up](guide.md#groups-add-up)." % name
            )
        )
    if variable.keys:
        parts.append("\n| key | type | meaning |\n|---|---|---|\n" + "".join(_rows(variable)))
    if variable.example:
        parts.append("\n```%s\n%s\n```\n" % ("bash" if variable.extra else "yaml", variable.example))
    return "".join(parts)


def _rows(variable: Variable) -> Iterator[str]:
    for key, meaning in variable.keys.items():
        spec = option(variable.kind, key)
        kind = _kind(spec) + (", required" if spec.get("required") else "")
        yield "| `%s` | %s | %s |\n" % (key, kind, meaning)


def option(kind: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the specification of a key such as services[].name."""
    for part in key.split("[]."):
        kind = kind["options"][part]
    return kind


def _kind(spec: Mapping[str, Any]) -> str:
    if "choices" in spec:
        return ", ".join("`%s`" % choice for choice in spec["choices"])
    if spec["type"] == "list":
        return _KINDS_OF_ENTRIES[spec["elements"]]
    return _KINDS.get(spec["type"], "mapping" if spec["type"] == "dict" else "text")


def _wrapped(text: str) -> str:
    return "\n" + textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
