# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import json
import os
from typing import Any

import pytest

from ansible_collections.baremetal.noiommu.plugins.module_utils._access import (
    LIMITS,
    RECORD,
    UDEV_RULES,
    parse_memlock,
    read_groups,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._fs import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.modules import dataplane_access
from ansible_collections.baremetal.noiommu.tests.unit.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.tree import Tree


class Accounts(Runner):
    """groupadd, usermod and the rest, on the tree's /etc/group."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.ran: list[str] = []
        self.failing: dict[str, RunResult] = {}

    def run(self, *argv: str) -> RunResult:
        self.ran.append(" ".join(argv))
        for start, result in self.failing.items():
            if self.ran[-1].startswith(start):
                return result
        groups = {one.name: one for one in read_groups(self.tree.root).values()}
        name = argv[-1]
        if argv[0] == "groupadd":
            gid = int(argv[argv.index("--gid") + 1]) if "--gid" in argv else 990
            groups[name] = type(next(iter(groups.values())))(name, gid, [])
        elif argv[0] == "groupdel":
            groups.pop(name, None)
        elif argv[0] == "usermod":
            groups[argv[3]].members.append(name)
        elif argv[0] == "gpasswd":
            groups[name].members.remove(argv[2])
        lines = ["%s:x:%d:%s" % (one.name, one.gid, ",".join(one.members)) for one in groups.values()]
        self.tree.file("/etc/group", "\n".join(lines))
        return RunResult(0, "", "")


@pytest.fixture
def accounts(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """A host with two users, a group of its own, and one VFIO group node of each kind."""
    tree.file("/etc/group", "root:x:0:\nadmins:x:100:alice")
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nvpp:x:1001:1001::/:/bin/sh")
    owners: dict[str, tuple[int, int]] = {}
    for node in ("7", "noiommu-0", "vfio"):
        tree.file("/dev/vfio/" + node)
        tree.at("/dev/vfio/" + node).chmod(0o600)
    real_stat = os.stat

    def fake_stat(path: Any, **options: Any) -> os.stat_result:
        found = real_stat(path, **options)
        owner = owners.get(str(path), (0, 0))
        return os.stat_result((*found[:4], *owner, *found[6:]))

    monkeypatch.setattr(os, "stat", fake_stat)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: owners.__setitem__(str(path), (uid, gid)))
    return Accounts(tree)


def run(accounts: Accounts, check: bool = False, **params: Any) -> dict[str, Any]:
    given = {"group": None, "gid": None, "users": [], "memlock": "unlimited", "state": "present", **params}
    module = FakeModule(given, check)
    dataplane_access.run(module, accounts.tree.root, accounts)
    return {**module.result, "warnings": module.warnings}


def refused(accounts: Accounts, **params: Any) -> HostError:
    """Return the error, after seeing that nothing was run or changed."""
    before = accounts.tree.content()
    with pytest.raises(HostError) as caught:
        run(accounts, **params)
    assert accounts.ran == [] and accounts.tree.content() == before
    assert caught.value.evidence and caught.value.remedy
    return caught.value


def test_a_missing_group_is_made_and_gets_everything(accounts: Accounts, tree: Tree) -> None:
    result = run(accounts, group="dataplane", users=["vpp"])
    assert result["changed"]
    assert accounts.ran == [
        "groupadd --system dataplane",
        "usermod --append --groups dataplane vpp",
        "udevadm control --reload",
    ]
    granted = {"uid": 0, "gid": 990, "mode": "0660"}
    assert result["after"] == {
        "groups": {"dataplane": {"gid": 990, "members": ["vpp"]}},
        "nodes": {"/dev/vfio/7": granted, "/dev/vfio/noiommu-0": granted},
    }
    assert tree.at("/dev/vfio/7").stat().st_mode & 0o777 == 0o660
    assert tree.at("/dev/vfio/vfio").stat().st_mode & 0o777 == 0o600
    rule = 'SUBSYSTEM=="vfio", KERNEL=="[0-9]*|noiommu-[0-9]*", GROUP="dataplane", MODE="0660"'
    assert tree.root.read_text(UDEV_RULES).splitlines()[1:] == [rule]
    assert tree.root.read_text(LIMITS).splitlines()[1:] == [
        "@dataplane soft memlock unlimited",
        "@dataplane hard memlock unlimited",
    ]


def test_check_mode_predicts_and_runs_nothing(accounts: Accounts, tree: Tree) -> None:
    before = tree.content()
    predicted = run(accounts, check=True, group="dataplane", gid=500, users=["vpp"])
    assert accounts.ran == [] and tree.content() == before
    assert run(accounts, group="dataplane", gid=500, users=["vpp"]) == predicted


def test_the_number_of_a_group_to_be_made_is_not_guessed(accounts: Accounts) -> None:
    after = run(accounts, check=True, group="dataplane")["after"]
    assert after["groups"]["dataplane"]["gid"] is None
    assert after["nodes"]["/dev/vfio/7"]["gid"] is None


def test_a_second_run_spawns_nothing(accounts: Accounts) -> None:
    run(accounts, group="dataplane", users=["vpp"])
    accounts.ran.clear()
    result = run(accounts, group="dataplane", users=["vpp"])
    assert not result["changed"] and result["diff"] == [] and accounts.ran == []


def test_a_new_node_with_the_wrong_owner_is_mended(accounts: Accounts, tree: Tree) -> None:
    run(accounts, group="dataplane")
    tree.file("/dev/vfio/8")
    accounts.ran.clear()
    result = run(accounts, group="dataplane")
    assert result["changed"] and accounts.ran == []
    assert result["after"]["nodes"]["/dev/vfio/8"] == {"uid": 0, "gid": 990, "mode": "0660"}
    assert "/dev/vfio/8" in result["diff"][0]["before"]


def test_absent_takes_back_everything_that_was_made(accounts: Accounts, tree: Tree) -> None:
    before = tree.content()
    run(accounts, group="dataplane", users=["vpp"])
    predicted = run(accounts, check=True, state="absent")
    result = run(accounts, state="absent")
    assert result == predicted
    assert result["after"]["nodes"]["/dev/vfio/7"] == {"uid": 0, "gid": 0, "mode": "0600"}
    for made in ("/etc/udev/rules.d", "/etc/udev", "/etc/security/limits.d", "/etc/security", "/var/lib", "/var"):
        tree.root.remove_empty_dir(made)
    assert tree.content() == before
    accounts.ran.clear()
    assert not run(accounts, state="absent")["changed"] and accounts.ran == []


def test_a_group_that_was_there_stays_with_its_own_members(accounts: Accounts, tree: Tree) -> None:
    run(accounts, group="admins", users=["alice", "vpp"])
    assert json.loads(tree.root.read_text(RECORD))["users_added"] == ["vpp"]
    run(accounts, state="absent")
    assert tree.root.read_text("/etc/group") == "root:x:0:\nadmins:x:100:alice"


def test_a_user_no_longer_listed_leaves(accounts: Accounts, tree: Tree) -> None:
    run(accounts, group="dataplane", users=["vpp", "alice"])
    predicted = run(accounts, check=True, group="dataplane", users=["alice"])
    assert predicted["after"]["groups"]["dataplane"]["members"] == ["alice"]
    assert run(accounts, group="dataplane", users=["alice"]) == predicted
    assert read_groups(tree.root)["dataplane"].members == ["alice"]


def test_another_group_replaces_the_first(accounts: Accounts, tree: Tree) -> None:
    run(accounts, group="dataplane", users=["vpp"])
    result = run(accounts, group="admins", users=["vpp"])
    assert list(result["after"]["groups"]) == ["admins"]
    assert "dataplane" not in read_groups(tree.root)
    assert result["after"]["nodes"]["/dev/vfio/7"]["gid"] == 100


def test_a_limit_in_bytes_is_written_in_kilobytes(accounts: Accounts, tree: Tree) -> None:
    run(accounts, group="dataplane", memlock=str(1 << 30))
    assert "@dataplane hard memlock 1048576" in tree.root.read_text(LIMITS)


@pytest.mark.parametrize("text", ["much", "-5", "12", ""])
def test_no_amounts(text: str) -> None:
    with pytest.raises(HostError):
        parse_memlock(text)


def test_an_unknown_user(accounts: Accounts) -> None:
    assert "no user bob" in refused(accounts, group="dataplane", users=["bob", "vpp"]).message


def test_a_name_that_is_none(accounts: Accounts) -> None:
    assert refused(accounts, group='x", MODE="0666').code == "group"


def test_the_number_of_an_existing_group_is_not_changed(accounts: Accounts) -> None:
    assert "gid 100, declared is 5" in refused(accounts, group="admins", gid=5).evidence[0]


def test_a_taken_number(accounts: Accounts) -> None:
    assert refused(accounts, group="dataplane", gid=100).evidence == ["/etc/group: gid 100 is admins"]


def test_a_group_that_became_somebodys_primary_stays(accounts: Accounts, tree: Tree) -> None:
    run(accounts, group="dataplane")
    accounts.ran.clear()
    tree.file("/etc/passwd", "bob:x:1002:990::/:/bin/sh")
    assert refused(accounts, state="absent").evidence == ["/etc/passwd: bob has gid 990"]


def test_a_damaged_record(accounts: Accounts, tree: Tree) -> None:
    tree.file(RECORD, "[]")
    assert refused(accounts, group="dataplane").code == "record"


def test_a_failing_usermod_leaves_the_host_as_it_was(accounts: Accounts, tree: Tree) -> None:
    before = tree.content()
    accounts.failing["usermod --append --groups dataplane vpp"] = RunResult(10, "", "usermod: cannot lock /etc/group\n")
    with pytest.raises(HostError) as caught:
        run(accounts, group="dataplane", users=["alice", "vpp"])
    assert "cannot lock /etc/group" in caught.value.message
    assert tree.content() == before


def test_a_missing_groupadd_says_what_to_install(accounts: Accounts) -> None:
    accounts.failing["groupadd"] = RunResult(127, "", "groupadd: No such file or directory (ENOENT)")
    with pytest.raises(HostError) as caught:
        run(accounts, group="dataplane")
    assert "passwd" in caught.value.remedy


def test_a_udev_that_does_not_answer_is_a_warning(accounts: Accounts) -> None:
    accounts.failing["udevadm"] = RunResult(1, "", "Failed to send reload request\n")
    assert "Failed to send reload request" in run(accounts, group="dataplane")["warnings"][0]
