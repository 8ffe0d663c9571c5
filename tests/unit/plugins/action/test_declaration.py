# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Misspelt variables end a run before any host is asked anything, wherever they were written.

The playbooks are the real ones, run by ansible-playbook.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.tests.unit.support.control_node import Control, play, role
from ansible_collections.baremetal.noiommu.tests.unit.support.mistakes import MISTAKES


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Control:
    return Control(tmp_path_factory.mktemp("control"))


def test_deploy_reaches_no_host_whose_own_variables_are_misspelt(control: Control) -> None:
    """Neither one that would be passed over, nor one that would be taken back."""
    hosts = {
        "right": {},
        "devices": {"noiommu_device": []},
        "maintained": {"noiommu_maintainance": "a new disk"},
        "absent": {"noiommu_state": "absent", "noiommu_acces": {}},
        "several": {"noiommu_hugepage": [], "noiommu_insecure_untill": "2030-01-01", "noiommu_maintenance": "x"},
    }
    done = control.run("baremetal.noiommu.deploy", hosts)
    assert done.rc != 0 and "Traceback" not in done.said
    assert done.reached == {"right"}, "a host that is well declared is reached: the script is asked"
    assert "Write noiommu_devices." in done.told("devices")
    assert "Write noiommu_maintenance." in done.told("maintained")
    assert "Write noiommu_access." in done.told("absent")
    assert all("Write %s." % name in done.told("several") for name in ("noiommu_hugepages", "noiommu_insecure_until"))


@pytest.mark.parametrize("playbook", ["deploy", "verify"])
def test_group_and_extra_variables(control: Control, playbook: str) -> None:
    done = control.run("baremetal.noiommu." + playbook, {"a": {}, "b": {}}, "-e", "noiommu_acces={}", noiommu_device=[])
    assert done.rc != 0 and done.reached == set()
    for host in "ab":
        assert "Write noiommu_access." in done.told(host) and "Write noiommu_devices." in done.told(host)


def test_every_mistake_ends_a_deploy_before_anything_is_asked_or_changed(control: Control) -> None:
    hosts = {"m%d" % number: mistake.variables for number, mistake in enumerate(MISTAKES)}
    hosts["right"] = {"noiommu_access": "{{ grants }}", "grants": {"group": "dataplane"}}
    hosts["template"] = {"noiommu_hugepages": "{{ pools }}", "pools": [{"size": "2M"}]}
    hosts["undefined"] = {"noiommu_devices": "{{ not_there }}"}
    hosts["misplaced"] = {"noiommu_batches": [1]}
    done = control.run("baremetal.noiommu.deploy", hosts)
    assert done.rc != 0 and "Traceback" not in done.said
    assert done.reached == {"right"}, "a host that is well declared is reached: the script is asked"
    for number, mistake in enumerate(MISTAKES):
        assert mistake.said.replace('"', '\\"') in done.told("m%d" % number), mistake.name
    assert "noiommu_hugepages[0]: the key count is missing" in done.told("template")
    assert "noiommu_devices is not declared properly" in done.told("undefined")
    assert "noiommu_batches has no effect in the inventory" in done.told("misplaced")
    recap = done.said.rpartition("PLAY RECAP")[2].strip().splitlines()[1:]
    assert len(recap) == len(hosts) and all("changed=0 " in line for line in recap)


@pytest.mark.parametrize(
    "playbook, option, tag, said",
    [
        ("deploy", "--tags", "hugepage", "Write hugepages."),
        ("deploy", "--tags", "never", "nothing would be done"),
        ("deploy", "--skip-tags", "always", "the checks are always made"),
        ("rollback", "--skip-tags", "always", "the checks are always made"),
        ("verify", "--skip-tags", "tagged", "the checks are always made"),
        ("verify", "--skip-tags", "all", "nothing would be done"),
        ("report", "--skip-tags", "always", "the checks are always made"),
        ("report", "--tags", "kmod", "Leave it"),
    ],
)
def test_tags_that_choose_nothing_are_refused(
    control: Control, playbook: str, option: str, tag: str, said: str
) -> None:
    done = control.run("baremetal.noiommu." + playbook, {"a": {}}, option, tag)
    assert done.rc != 0 and done.reached == set() and said in done.told("a"), done.said


def test_what_a_play_sets_decides_between_groups(control: Control) -> None:
    """Also where it says the same as one of the groups: the order of their names has no part in it."""
    passthrough, ours = "baremetal.noiommu.passthrough", {"noiommu_devices": [{"slot": 2}]}
    (control.path / "ours.yml").write_text(json.dumps(ours))
    plays: dict[str, dict[str, Any]] = {
        "play": {"roles": [passthrough], "vars": ours},
        "file": {"roles": [passthrough], "vars_files": [["missing.yml", "ours.yml"]]},
        "task": {"tasks": [role("include", "passthrough", **ours)]},
        "block": {"tasks": [{"block": [role("import", "passthrough")], "vars": ours}]},
        "fact": {"pre_tasks": [{"ansible.builtin.set_fact": ours}], "roles": [passthrough]},
        "host": {"roles": [passthrough]},
        "groups": {"roles": [passthrough]},
    }
    hosts: dict[str, dict[str, Any]] = {name: {} for name in plays}
    hosts["host"] = ours
    members = {"hosts": {name: {} for name in plays}}
    groups = {"sto": {**members, "vars": {"noiommu_devices": [{"slot": 1}]}}, "wan": {**members, "vars": ours}}
    (control.path / "groups.yml").write_text(json.dumps({"all": {"children": groups}}))
    hosts["bystander"] = {}
    leave = {"ansible.builtin.meta": "end_host", "when": "inventory_hostname == 'bystander'"}
    run = [
        play(name + ",bystander", **{**more, "pre_tasks": [leave, *more.get("pre_tasks", [])]})
        for name, more in plays.items()
    ]
    done = control.run(run, hosts, "-i", "groups.yml")
    assert done.reached == set(plays) - {"groups"}, done.said
    assert "noiommu_devices is set by the groups sto, wan" in done.told("groups")


def test_a_list_given_as_text_is_explained(control: Control) -> None:
    extra = "noiommu_devices=[{'mac':'52:54:00:12:34:56'}]"
    done = control.run("baremetal.noiommu.deploy", {"a": {}}, "-e", extra)
    assert done.rc != 0 and done.reached == set()
    assert "noiommu_devices: expected a list of mappings, found" in done.told("a")
    assert "give it as JSON" in done.told("a")


def test_the_report_lists_it_as_refused_and_leaves_the_host_alone(control: Control) -> None:
    hosts = {"right": {}, "wrong": {"noiommu_device": [], "noiommu_metrics_dir": "/var/lib/metrics"}}
    done = control.run("baremetal.noiommu.report", hosts)
    assert done.rc == 0 and done.reached == {"right"}, done.said
    report = json.loads((control.path / "noiommu-report/report.json").read_text())
    states = {
        host["name"]: (host["state"], [refusal["code"] for refusal in host["refusals"]]) for host in report["hosts"]
    }
    assert states == {"right": ("unreachable", []), "wrong": ("refused", ["unknown_variable"])}


def test_a_rollback_warns_and_goes_on(control: Control) -> None:
    done = control.run("baremetal.noiommu.rollback", {"a": {"noiommu_device": []}})
    assert done.reached == {"a"} and "[WARNING]" in done.said
    assert "noiommu_device is not a variable" in " ".join(done.said.split())


def test_roles_in_plays_of_others(control: Control) -> None:
    """As variables of a play, of a role, of an include; each role that works alone, and the way back."""
    passthrough, wrong = "baremetal.noiommu.passthrough", {"noiommu_device": []}
    plays = [
        play("right", roles=[passthrough]),
        play("vars", roles=[passthrough], vars=wrong),
        play("params", roles=[{"role": passthrough, **wrong}]),
        play("included", tasks=[role("include", "passthrough", **wrong)]),
        play("imported", tasks=[role("import", "passthrough", **wrong)]),
        play("preflight", roles=["baremetal.noiommu.preflight"], vars=wrong),
        play("hugepages", roles=["baremetal.noiommu.hugepages"], vars={**wrong, "noiommu_hugepages": []}),
        play("access", roles=["baremetal.noiommu.access"], vars={**wrong, "noiommu_access": {}}),
        play("back", roles=[{"role": passthrough, "passthrough_state": "absent"}], vars=wrong),
    ]
    hosts = [play["hosts"] for play in plays]
    # A run ends with the first play that has lost all hosts: one that does nothing is never lost.
    leave = {"ansible.builtin.meta": "end_host", "when": "inventory_hostname == 'bystander'"}
    plays = [{**play, "hosts": play["hosts"] + ",bystander", "pre_tasks": [leave]} for play in plays]
    done = control.run(plays, {host: {} for host in [*hosts, "bystander"]})
    assert done.rc != 0 and done.reached == {"right", "back"}, done.said
    for host in hosts[1:-1]:
        # Ansible itself knows no parameters of a role but those of its specification.
        expected = "noiommu_device. Supported parameters" if host == "params" else "Write noiommu_devices."
        assert expected in done.told(host), host
