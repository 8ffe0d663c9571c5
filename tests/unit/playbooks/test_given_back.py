# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rollback playbook says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = Path(__file__).parents[3] / "playbooks/templates/given_back.j2"


def said(**variables: Any) -> str:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    given = {"inventory_hostname": "alpha", "ansible_check_mode": False, "unreleased": [], "cmdline": {}}
    given["passthrough_declared"] = {"steps": ["preflight", "kmod", "hugepages", "devices", "access"]}
    return environment.from_string(TEMPLATE.read_text()).render({**given, "taint": {"mask": 0}, **variables})


def test_everything() -> None:
    assert said() == "alpha: everything was given back. The kernel is not tainted."
    assert said(ansible_check_mode=True).startswith("alpha: everything would be given back.")


def test_all_but_what_could_not_be_released() -> None:
    kept = [{"address": "0000:00:0%d.0" % number, "reason": "x"} for number in (4, 5)]
    assert said(unreleased=kept) == (
        "alpha: everything was given back, except 0000:00:04.0, 0000:00:05.0, as the warnings say."
        " Run again once that has ended. The kernel is not tainted."
    )


def test_a_part() -> None:
    part = {"steps": ["preflight", "hugepages", "access"]}
    assert said(passthrough_declared=part).startswith("alpha: hugepages, access was given back, and nothing else.")
    assert said(passthrough_declared={"steps": ["preflight"]}).startswith(
        "alpha: nothing was given back, and nothing else."
    )
