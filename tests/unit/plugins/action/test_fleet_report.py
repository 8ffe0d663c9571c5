# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plugins that make a host's record and write the fleet's report; neither asks a host for anything."""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.action import fleet_report, host_report
from ansible_collections.baremetal.noiommu.plugins.module_utils._base import times
from ansible_collections.baremetal.noiommu.tests.report import fleet


@pytest.fixture(autouse=True)
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base class wants a whole running Ansible."""
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda self, tmp, task_vars: {})


def run(plugin: Any, args: dict[str, Any], task_vars: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    action = plugin.ActionModule.__new__(plugin.ActionModule)
    action._task = SimpleNamespace(args=args, check_mode=check_mode)
    action.validate_argument_spec = lambda spec: (
        {},
        {**{name: one.get("default") for name, one in spec.items()}, **args},
    )
    return action.run(None, task_vars)


def host(name: str, **args: Any) -> dict[str, Any]:
    return run(host_report, args, {"inventory_hostname": name, **fleet.realistic()[name]})


class HostVars:
    """What the run knows of each host."""

    def __init__(self, hosts: dict[str, dict[str, Any]]) -> None:
        self._hosts = hosts

    def raw_get(self, name: str) -> dict[str, Any]:
        """Return variables as they are: a host's answer is not a template."""
        return self._hosts[name]

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Return the same with templates done; there are none here."""
        return self._hosts[name]


def write(
    dest: Path, hosts: dict[str, dict[str, Any]], check_mode: bool = False, inventory: list[str] | None = None
) -> dict[str, Any]:
    """Report on some hosts; an inventory says that others have left."""
    known = {
        name: {"host_report_result": run(host_report, {}, {"inventory_hostname": name, **registered})}
        for name, registered in hosts.items()
    }
    args = {"hosts": list(hosts), "dest": str(dest), "inventory": inventory or [], "prune": inventory is not None}
    return run(fleet_report, args, {"hostvars": HostVars(known)}, check_mode)


def files(dest: Path) -> dict[str, str]:
    return {
        os.path.relpath(os.path.join(folder, name), dest): Path(folder, name).read_text(encoding="utf-8")
        for folder, _dirs, names in os.walk(dest)
        for name in names
    }


REPORT = ["report.html", "report.json"]


def states(dest: Path) -> dict[str, str]:
    """Return what the report says of each host, and when it was checked."""
    report = json.loads((dest / "report.json").read_text(encoding="utf-8"))
    return {one["name"]: "%s %s" % (one["state"], one["checked_at"]) for one in report["hosts"]}


def at(monkeypatch: pytest.MonkeyPatch, stamp: str) -> None:
    """Set the clock."""
    monkeypatch.setattr(times, "utc_now", lambda: times.parse_stamp(stamp))


# --- one host ---


@pytest.mark.parametrize(
    "name, failed, message",
    [
        ("edge1", False, "edge1: in the declared state"),
        ("edge2", True, "edge2: drifted: hugepages: 2M: 960 instead of 1024"),
        (
            "core3",
            True,
            "core3: refused: guarded_device: 0000:65:00.0 carries the address of the management connection.",
        ),
    ],
)
def test_verify_fails_with_one_line_and_nothing_else(name: str, failed: bool, message: str) -> None:
    assert host(name, fail=True) == {"changed": False, "failed": failed, "msg": message}


def test_a_record_never_fails_the_run() -> None:
    result = host("edge2")
    assert not result.get("failed") and not result["changed"]
    assert result["record"]["state"] == "drifted" and 'noiommu_state{state="drifted"} 1' in result["metrics"]


# --- the fleet ---


def test_all_files_are_written(tmp_path: Path) -> None:
    dest = tmp_path / "new" / "report"
    result = write(dest, fleet.realistic())
    assert result["changed"] and result["dest"] == str(dest) and result["summary"]["hosts"] == 13
    found = files(dest)
    assert sorted(found) == sorted(
        [".lock", "report.html", "report.json", *("metrics/%s.prom" % name for name in fleet.realistic())]
    )
    assert json.loads(found["report.json"])["version"] == 1
    assert 'noiommu_state{host="edge1",state="ok"} 1' in found["metrics/edge1.prom"]


def test_the_same_again_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {**fleet.hostile(), **fleet.realistic()}
    write(tmp_path, hosts)
    later = times.utc_now() + datetime.timedelta(days=1)
    monkeypatch.setattr(times, "utc_now", lambda: later)
    assert not write(tmp_path, hosts)["changed"]
    assert later.strftime("%Y-%m-%d") in files(tmp_path)["report.json"]
    assert write(tmp_path, {**fleet.realistic(), "edge1": fleet.unreachable()})["changed"]


def test_check_mode_predicts_and_writes_nothing(tmp_path: Path) -> None:
    assert write(tmp_path / "x", fleet.realistic(), check_mode=True)["changed"] and not (tmp_path / "x").exists()
    write(tmp_path, fleet.realistic())
    before = files(tmp_path)
    fewer = {name: known for name, known in fleet.realistic().items() if name != "lab4"}
    assert not write(tmp_path, fewer, check_mode=True)["changed"]
    assert write(tmp_path, fewer, check_mode=True, inventory=list(fewer))["changed"]
    assert not write(tmp_path, fleet.realistic(), check_mode=True)["changed"]
    assert files(tmp_path) == before


def test_a_host_that_has_left_is_watched_no_more_and_other_files_stay(tmp_path: Path) -> None:
    write(tmp_path, fleet.realistic())
    (tmp_path / "metrics" / "other.prom").write_text("# HELP other_metric Not ours.\n")
    result = write(tmp_path, {"edge1": fleet.answers()}, inventory=["edge1", "edge2", "switch"])
    assert result["changed"] and result["removed"] == sorted(set(fleet.realistic()) - {"edge1", "edge2"})
    assert (result["checked"], result["kept"], result["summary"]["hosts"]) == (1, 1, 2)
    names = ("edge1", "edge2", "other")
    assert sorted(files(tmp_path)) == [".lock", *("metrics/%s.prom" % name for name in names), *REPORT]


def test_a_host_without_a_record_is_in_the_report(tmp_path: Path) -> None:
    known = {"a": {"host_report_result": {"failed": True, "msg": "it broke"}}, "b": {}, "c": None}
    result = run(fleet_report, {"hosts": list(known), "dest": str(tmp_path)}, {"hostvars": HostVars(known)})
    hosts = json.loads(files(tmp_path)["report.json"])["hosts"]
    assert [(one["name"], one["state"]) for one in hosts] == [(name, "failed") for name in known]
    assert hosts[0]["reason"] == "it broke" and result["summary"]["failed"] == 3


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = write(tmp_path / "file", fleet.realistic())
    assert result["failed"] and "Could not open" in result["msg"] and result["refusals"][0]["remedy"]


def test_hostile_hosts_get_files_of_their_own_inside_the_directory(tmp_path: Path) -> None:
    hosts = fleet.hostile()
    write(tmp_path / "report", hosts)
    assert os.listdir(tmp_path) == ["report"] and len(files(tmp_path)) == len(hosts) + 3


# --- several runs, one report ---

NOON, ONE, TWO = ("2026-03-01T%d:00:00Z" % hour for hour in (12, 13, 14))


def test_a_run_replaces_what_is_known_of_its_own_hosts_and_of_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, NOON)
    write(tmp_path, {"a": fleet.answers(), "b": fleet.answers()})
    before = files(tmp_path)
    at(monkeypatch, ONE)
    result = write(tmp_path, {"b": fleet.unreachable(), "c": fleet.answers()}, inventory=["a", "b", "c"])
    assert states(tmp_path) == {"a": "ok " + NOON, "b": "unreachable " + ONE, "c": "ok " + ONE}
    assert result["summary"]["ok"] == 2 and result["summary"]["unreachable"] == 1
    assert files(tmp_path)["metrics/a.prom"] == before["metrics/a.prom"]
    assert files(tmp_path)["metrics/b.prom"] != before["metrics/b.prom"]


def test_without_an_inventory_nobody_leaves(tmp_path: Path) -> None:
    """An AWX job slice has an inventory of its own hosts alone."""
    write(tmp_path, fleet.realistic())
    assert write(tmp_path, {"new": fleet.answers()})["removed"] == []
    assert set(states(tmp_path)) == {*fleet.realistic(), "new"}
    assert len(files(tmp_path)) == 14 + 3


def test_the_metrics_of_a_listed_host_stay_though_the_report_is_lost(tmp_path: Path) -> None:
    write(tmp_path, {"a": fleet.answers(), "b": fleet.answers()})
    (tmp_path / "report.json").unlink()
    write(tmp_path, {"b": fleet.answers()}, inventory=["a", "b"])
    assert set(states(tmp_path)) == {"b"} and "metrics/a.prom" in files(tmp_path)


def test_many_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = fleet_report.slices.earlier

    def slowly(*args: Any) -> Any:
        known = read(*args)
        time.sleep(0.05)  # in which another one would have read the same
        return known

    monkeypatch.setattr(fleet_report.slices, "earlier", slowly)
    hosts = fleet.generated(24)
    runs = [threading.Thread(target=write, args=(tmp_path, fleet.some(hosts, number, 8))) for number in range(8)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert set(states(tmp_path)) == set(hosts) and len(files(tmp_path)) == 24 + 3


def test_who_checked_last_is_believed_though_he_wrote_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, TWO)
    early, late = (
        fleet.records({"a": known}, when) for known, when in ((fleet.answers(), NOON), (fleet.unreachable(), ONE))
    )
    fleet_report.write(late, str(tmp_path), TWO)
    kept = files(tmp_path)["metrics/a.prom"]
    fleet_report.write(early, str(tmp_path), TWO, [])
    assert states(tmp_path) == {"a": "unreachable " + ONE} and files(tmp_path)["metrics/a.prom"] == kept
    # One whose clock was ahead is not believed for ever.
    fleet_report.write(late, str(tmp_path / "x"), NOON)
    fleet_report.write(early, str(tmp_path / "x"), NOON)
    assert states(tmp_path / "x") == {"a": "ok " + NOON}


def test_a_report_of_before_is_taken_over(tmp_path: Path) -> None:
    """Its hosts have no times of their own."""
    report = fleet.report({"a": fleet.answers()})
    for one in report["hosts"]:
        del one["checked_at"], one["warnings"], one["os"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    write(tmp_path, {"b": fleet.answers()})
    assert states(tmp_path)["a"] == "ok " + fleet.GENERATED_AT and set(states(tmp_path)) == {"a", "b"}


def test_what_a_later_version_wrote_is_kept(tmp_path: Path) -> None:
    report = fleet.report({"a": fleet.answers()})
    report["hosts"][0]["weather"] = "fair"
    (tmp_path / "report.json").write_text(json.dumps(report))
    write(tmp_path, {"b": fleet.answers()})
    assert json.loads((tmp_path / "report.json").read_text())["hosts"][0]["weather"] == "fair"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 1, "hosts": {}}', '{"version": 1}'])
def test_a_damaged_report_is_refused_and_left(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    result = write(tmp_path, {"b": fleet.answers()})
    assert result["failed"] and result["refusals"][0]["code"] == "record"
    assert "remove it" in result["refusals"][0]["remedy"] and (tmp_path / "report.json").read_text() == content
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "place, bad",
    [
        ("state", "fine"),
        ("insecure", None),
        ("devices", [{"address": "x"}]),
        ("taint", {"mask": "1", "flags": []}),
        ("checked_at", "yesterday"),
        ("refusals", [1]),
    ],
)
def test_a_damaged_entry_costs_one_host(tmp_path: Path, place: str, bad: Any) -> None:
    report = fleet.report({"a": fleet.answers(), "b": fleet.answers()})
    report["hosts"][0][place] = bad
    (tmp_path / "report.json").write_text(json.dumps(report))
    (warning,) = write(tmp_path, {"c": fleet.answers()})["warnings"]
    assert "hosts[0].%s" % place in warning and set(states(tmp_path)) == {"b", "c"}


def test_another_run_that_writes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_report, "_WAIT", 0.0)
    with open(tmp_path / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = write(tmp_path, {"a": fleet.answers()})
        assert result["refusals"][0]["code"] == "busy" and "Another run writes the report in" in result["msg"]
        assert write(tmp_path, {"a": fleet.answers()}, check_mode=True)["changed"]
    assert write(tmp_path, {"a": fleet.answers()})["changed"]


def test_a_filesystem_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    result = write(tmp_path, {"a": fleet.answers()})
    assert result["refusals"][0]["code"] == "file" and "a filesystem with locks" in result["msg"]


# --- a host that decides by facts ---


def with_facts(tmp_path: Path, **own: Any) -> dict[str, dict[str, Any]]:
    """One host whose facts say where the report goes and what its record is, and one whose inventory says where."""
    facts = {"noiommu_report_dir": str(tmp_path / "theirs"), "host_report_result": {"record": {"evil": True}}}
    return {
        "evil": {**facts, "ansible_facts": facts, **own},
        "edge1": {"noiommu_report_dir": str(tmp_path / "ours"), "ansible_facts": {}},
    }


def test_facts_of_the_first_host_do_not_say_where_the_report_goes(tmp_path: Path) -> None:
    hosts = with_facts(tmp_path)
    args = {"hosts": list(hosts), "dest": str(tmp_path / "theirs")}
    result = run(fleet_report, args, {**hosts["evil"], "hostvars": HostVars(hosts)})
    assert result["dest"] == str(tmp_path / "ours") and not (tmp_path / "theirs").exists()
    assert json.loads(files(tmp_path / "ours")["report.json"])["hosts"][0]["state"] == "failed"


def test_a_value_that_facts_cannot_beat_is_used(tmp_path: Path) -> None:
    hosts = with_facts(tmp_path, noiommu_report_dir=str(tmp_path / "extra"))
    args = {"hosts": list(hosts), "dest": str(tmp_path / "extra")}
    assert run(fleet_report, args, {**hosts["evil"], "hostvars": HostVars(hosts)})["dest"] == str(tmp_path / "extra")


def test_with_nobody_to_believe_nothing_is_written(tmp_path: Path) -> None:
    hosts = {"evil": with_facts(tmp_path)["evil"]}
    args = {"hosts": ["evil"], "dest": str(tmp_path / "theirs")}
    result = run(fleet_report, args, {**hosts["evil"], "hostvars": HostVars(hosts)})
    assert result["refusals"][0]["code"] == "facts_override" and list(tmp_path.iterdir()) == []


def test_facts_are_not_what_a_run_found_out() -> None:
    facts = {"preflight_info": {"verdict": {"backend": "iommu"}}}
    known = {"inventory_hostname": "evil", **facts, "compare_failure": {"failed": True, "msg": "it broke"}}
    result = run(host_report, {}, {**known, "ansible_facts": facts})
    assert result["record"]["state"] == "failed" and result["record"]["backend"] is None


def test_facts_of_the_first_host_do_not_say_who_leaves(tmp_path: Path) -> None:
    write(tmp_path / "ours", {"a": fleet.answers()})
    hosts = with_facts(tmp_path)
    hosts["evil"]["ansible_facts"]["noiommu_report_prune"] = hosts["evil"]["noiommu_report_prune"] = True
    args = {"hosts": list(hosts), "dest": str(tmp_path / "theirs"), "inventory": list(hosts), "prune": True}
    assert run(fleet_report, args, {**hosts["evil"], "hostvars": HostVars(hosts)})["removed"] == []
    hosts["edge1"]["noiommu_report_prune"] = "yes"
    assert run(fleet_report, args, {**hosts["evil"], "hostvars": HostVars(hosts)})["removed"] == ["a"]
