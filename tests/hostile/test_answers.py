# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that lie in every field, to every module: the others are deployed, verified and rolled back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.tests.report import fleet as reported
from ansible_collections.baremetal.noiommu.tests.unit.playbooks.fleet import Answers, Fleet, Played

PLAYBOOKS = ("deploy", "verify", "report", "rollback")
# Modules whose answers a run keeps, in the order in which it asks.
MODULES = ("dkms_module", "hugepages", "kernel_cmdline", "vfio_binding", "dataplane_access", "kernel_taint_info")
# So that a deploy asks each of them.
DECLARED = {
    "noiommu_accept_unsafe": True,
    "noiommu_devices": [{"address": "0000:65:00.0"}],
    "noiommu_hugepages": [{"size": "2M", "count": 16}],
    "noiommu_access": {"group": "dataplane"},
}
# What ansible-playbook prints when it is itself surprised.
CRASHES = ("Traceback (most recent call last)", "dead state", "ERROR! Unexpected Exception", "Unexpected failure")


def info(**more: Any) -> dict[str, Any]:
    """What a converged host says of itself."""
    return {
        **reported.answers()["preflight_info"],
        "prebuilt_kernels": [],
        "packages_missing": [],
        "recorded": {},
        "iommu_boot": {"recorded": False, "pending": False, "parameters": [], "without": []},
        **more,
    }


def taint() -> dict[str, Any]:
    return {"changed": False, "mask": 0, "flags": []}


def answers(said: Any = None, **modules: Any) -> Answers:
    """The answers of a converged host, but for these."""
    own = {name: {"changed": False} for name in MODULES}
    return {
        name: [("", answer)]
        for name, answer in {**own, "noiommu_info": said or info(), "kernel_taint_info": taint(), **modules}.items()
    }


def everywhere(value: Any, text: str) -> Any:
    """Return the same with a text in the place of every other, keys included."""
    if isinstance(value, dict):
        return {**{key: everywhere(inner, text) for key, inner in value.items()}, text: text}
    if isinstance(value, list):
        return [everywhere(inner, text) for inner in value] + [text]
    return text if isinstance(value, str) else value


def otherwise(value: Any) -> Any:
    """Return something of another type than the value has."""
    return [] if isinstance(value, dict) else {"0": value} if isinstance(value, (list, str)) else "seven"


class World:
    """The fleet, where its hosts would like to write, and what became of each playbook."""

    def __init__(self, path: Path) -> None:
        self.path, self.fleet = path, Fleet(path)
        self.pwned = path / "pwned"
        self.played: dict[str, Played] = {}
        command = "touch %s" % self.pwned
        template = "{{ lookup('ansible.builtin.pipe', '%s') }}" % command
        theirs = {
            "noiommu_report_dir": str(self.pwned),
            "noiommu_metrics_dir": str(self.pwned),
            "noiommu_kmod_build_host": "bystander",
            "ansible_connection": "ssh",
            "ansible_host": "bystander",
            "ansible_python_interpreter": "/bin/false",
            "compare_failure": {"msg": template},
        }
        magic = {
            "ansible_facts": {},
            "_ansible_delegated_vars": {"ansible_host": "bystander"},
            "_ansible_verbose_always": True,
            "add_host": {"host_name": "made-up", "groups": ["noiommu"], "host_vars": theirs},
            "add_group": "noiommu",
            "results": [{"changed": True, "item": "bystander", "failed_kernels": {template: [template]}}],
            "exception": template,
            "invocation": {"module_args": theirs},
            "warnings": [template],
            "deprecations": [{"msg": template, "version": "9"}],
            "stats": theirs,
            "include": str(self.pwned),
        }
        whole = {name: {**taint(), "changed": True} for name in MODULES}
        self.hostile: dict[str, Answers] = {
            "templates": answers(everywhere(info(), template), **everywhere(whole, template)),
            "types": answers(
                {key: otherwise(value) for key, value in info().items()}, **{name: {} for name in MODULES}
            ),
            "inner-types": answers(
                info(verdict={key: otherwise(value) for key, value in info()["verdict"].items()}, devices=[7, None, []])
            ),
            "magic": answers({**info(), **magic}, **{name: {**value, **magic} for name, value in whole.items()}),
            "refuses-all": answers(
                info(verdict={"ok": False, "refusals": [{"code": template}, 7], "warnings": template, "backend": None})
            ),
            "paths": answers(everywhere(info(), "../../../../" + str(self.pwned))),
            "absent-keys": answers({"changed": False}),
            "no-json": {"noiommu_info": [("", "this is not JSON " + template)]},
            "deep-json": {"noiommu_info": [("", "[" * 100000)]},
            "unreachable": {"noiommu_info": [("", {"unreachable": True, "msg": template})]},
            **{
                "facts-of-" + name.replace("_", "-"): answers(**{name: {**whole[name], "ansible_facts": theirs}})
                for name in ("noiommu_info", *MODULES)
                if name in whole
            },
            "facts-of-stock-modules": {
                **answers(),
                **{
                    name: [("", {"changed": True, "ansible_facts": theirs})]
                    for name in ("setup", "copy", "file", "stat")
                },
            },
        }
        for name, said in self.hostile.items():
            self.fleet.add(name, said)
        self.fleet.add("honest", answers())
        self.fleet.add("bystander", {}, group=False)

    def play(self, playbook: str) -> Played:
        """Run a playbook once on all of them."""
        if playbook not in self.played:
            self.played[playbook] = self.fleet.play(playbook, **DECLARED, noiommu_report_dir=str(self.path / "report"))
        return self.played[playbook]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_the_honest_host_gets_what_is_declared(world: World, playbook: str) -> None:
    played = world.play(playbook)
    assert re.search(r"^honest +: ok=[1-9]\d* .*unreachable=0 +failed=0 ", played.text, re.MULTILINE), played.text
    assert not [crash for crash in CRASHES if crash in played.text], played.text
    assert played.asked["bystander"] == []
    assert not world.pwned.exists()


def test_every_host_is_in_the_report_by_its_own_name(world: World) -> None:
    world.play("report")
    written = json.loads((world.path / "report/report.json").read_text())
    states = {host["name"]: host["state"] for host in written["hosts"]}
    assert states.keys() == {*world.hostile, "honest"}
    assert states["honest"] == "ok"


@pytest.mark.parametrize("module", MODULES)
def test_facts_cost_the_host_its_own_rollback(world: World, module: str) -> None:
    said = world.play("rollback").said_of("facts-of-" + module.replace("_", "-"))
    assert "fatal: [facts-of-" in said and "ansible_facts: " in said and "remedy" in said
    others = [line for line in world.play("rollback").text.splitlines() if line.startswith("fatal: [honest]")]
    assert not others
