# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The group, its members and the device nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import group as access_group
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import parse_memlock
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.nodes import NodesPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.plan import AccessPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    ACCESS_RECORD,
    LIMITS,
    ORIGINALS,
    UDEV_RULES,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.accounts import read_groups
from ansible_collections.baremetal.noiommu.tests.unit.support.access import (
    ADDRESS,
    Accounts,
    bound,
    refused,
    run,
    vfio_group,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


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
        "binaries": {},
    }
    assert tree.at("/dev/vfio/7").stat().st_mode & 0o777 == 0o660
    assert tree.at("/dev/vfio/vfio").stat().st_mode & 0o777 == 0o666
    rules = tree.root.read_text(UDEV_RULES).splitlines()[1:]
    assert [rule.partition(', PROGRAM=="')[0] for rule in rules] == [
        'SUBSYSTEM=="vfio", KERNEL=="[0-9]*|noiommu-[0-9]*"',
        'SUBSYSTEM=="misc", KERNEL=="noiommu", GROUP:="dataplane", MODE:="0660"',
        'SUBSYSTEM=="misc", KERNEL=="vfio", MODE:="0666"',
    ]
    assert rules[0].endswith('", GROUP:="dataplane", MODE:="0660"')
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
    vfio_group(tree, 8, "noiommu")
    bound(tree, *(ADDRESS % number for number in (0, 7, 8)))
    accounts.ran.clear()
    result = run(accounts, group="dataplane")
    assert result["changed"] and accounts.ran == []
    assert result["after"]["nodes"]["/dev/vfio/8"] == {"uid": 0, "gid": 990, "mode": "0660"}
    assert "/dev/vfio/8" in result["diff"][0]["before"]


def mode_and_group(accounts: Accounts, path: str) -> tuple[int, int]:
    return accounts.mode(path), accounts.owners.get(str(accounts.tree.at(path)), (0, 0))[1]


def test_nodes_of_other_peoples_devices_are_left_alone(accounts: Accounts, tree: Tree) -> None:
    """As of a graphics card that an IOMMU confines to a virtual machine."""
    node = vfio_group(tree, 12, None)
    run(accounts, group="dataplane")
    assert mode_and_group(accounts, node) == (0o600, 0)
    assert mode_and_group(accounts, "/dev/vfio/7") == (0o660, 990)
    accounts.owners[str(tree.at(node))] = (0, 100)
    assert not run(accounts, group="dataplane")["changed"]
    run(accounts, state="absent")
    assert mode_and_group(accounts, node) == (0o600, 100)


def test_nothing_is_given_before_a_device_is_ours(accounts: Accounts, tree: Tree) -> None:
    tree.remove(ORIGINALS)
    run(accounts, group="dataplane")
    assert mode_and_group(accounts, "/dev/vfio/7") == (0o600, 0)


@pytest.mark.parametrize("wanted", [{"group": "admins"}, {"state": "absent"}])
def test_nodes_that_an_earlier_version_gave_are_taken_from_the_group(
    accounts: Accounts, tree: Tree, wanted: dict[str, Any]
) -> None:
    """It gave every VFIO group of the host to any group; the rule tells, also where the group was there before."""
    node = vfio_group(tree, 12, None)
    run(accounts, group="admins")
    accounts.owners[str(tree.at(node))] = (0, 100)
    tree.at(node).chmod(0o660)
    tree.file(UDEV_RULES, 'SUBSYSTEM=="vfio", KERNEL=="[0-9]*|noiommu-[0-9]*", GROUP:="admins", MODE:="0660"')
    predicted = run(accounts, check=True, **wanted)
    assert predicted["after"]["nodes"][node] == {"uid": 0, "gid": 0, "mode": "0600"}
    assert run(accounts, **wanted)["after"] == predicted["after"]
    assert mode_and_group(accounts, node) == (0o600, 0)
    assert not run(accounts, **wanted)["changed"]


def test_a_container_that_nobody_can_open_is_opened_and_closed_again(accounts: Accounts, tree: Tree) -> None:
    tree.at("/dev/vfio/vfio").chmod(0o600)
    predicted = run(accounts, check=True, group="dataplane", gid=990)
    assert run(accounts, group="dataplane", gid=990) == predicted
    assert predicted["after"]["nodes"]["/dev/vfio/vfio"] == {"uid": 0, "gid": 0, "mode": "0666"}
    assert accounts.mode("/dev/vfio/vfio") == 0o666
    assert not run(accounts, group="dataplane", gid=990)["changed"]
    tree.at("/dev/vfio/vfio").chmod(0o600)
    assert run(accounts, group="dataplane", gid=990)["changed"] and accounts.mode("/dev/vfio/vfio") == 0o666
    run(accounts, state="absent")
    assert accounts.mode("/dev/vfio/vfio") == 0o600


@pytest.mark.parametrize(("mode", "group"), [(0o666, 0), (0o660, 990)])
def test_a_container_that_the_group_can_open_is_left_alone(
    accounts: Accounts, tree: Tree, mode: int, group: int
) -> None:
    tree.file("/etc/group", "root:x:0:\ndataplane:x:990:")
    tree.at("/dev/vfio/vfio").chmod(mode)
    accounts.owners[str(tree.at("/dev/vfio/vfio"))] = (0, group)
    assert "/dev/vfio/vfio" not in run(accounts, group="dataplane")["after"]["nodes"]
    assert mode_and_group(accounts, "/dev/vfio/vfio") == (mode, group)


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
    assert json.loads(tree.root.read_text(ACCESS_RECORD))["users_added"] == ["vpp"]
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
    done = run(accounts, state="absent")
    assert any("The group dataplane stays: it is the primary group of bob" in warning for warning in done["warnings"])
    assert done["after"]["groups"] == {"dataplane": {"gid": 990, "members": []}}
    assert not tree.root.exists(ACCESS_RECORD) and not any(command.startswith("groupdel") for command in accounts.ran)
    assert not run(accounts, state="absent")["changed"]


@pytest.mark.parametrize("gid", [None, 5000])
def test_a_group_of_a_directory_service_is_not_made(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, gid: int | None
) -> None:
    monkeypatch.setattr(access_group, "directory_group", lambda root, name, number: "dataplane, gid 5000")
    assert "name service switch: dataplane, gid 5000" in refused(accounts, group="dataplane", gid=gid).evidence


def test_the_running_hosts_name_service_is_asked() -> None:
    assert access_group.directory_group(Root("/"), "root", None) == "root, gid 0"
    assert access_group.directory_group(Root("/"), "no-such-group", 0) == "root, gid 0"
    assert access_group.directory_group(Root("/"), "no-such-group", None) is None
    assert ("root", 0) in access_group.primary_groups(Root("/"))


def test_a_name_ends_where_it_ends(accounts: Accounts) -> None:
    assert refused(accounts, group="dataplane\n").code == "group"


def test_a_link_to_a_drop_ins_directory_stays(accounts: Accounts, tree: Tree) -> None:
    run(accounts, group="dataplane")
    tree.dir("/srv/dropins")
    tree.link("/etc/systemd/system/dev-hugepages.mount.d", "/srv/dropins")
    run(accounts, state="absent")
    assert tree.root.exists("/srv/dropins")


def test_a_damaged_record(accounts: Accounts, tree: Tree) -> None:
    tree.file(ACCESS_RECORD, "[]")
    assert refused(accounts, group="dataplane").code == "record"


def test_a_failing_usermod_leaves_the_host_as_it_was(accounts: Accounts, tree: Tree) -> None:
    before = tree.content()
    accounts.failing["usermod --append --groups dataplane vpp"] = RunResult(10, "", "usermod: cannot lock /etc/group\n")
    with pytest.raises(HostError) as caught:
        run(accounts, group="dataplane", users=["alice", "vpp"])
    assert "cannot lock /etc/group" in caught.value.message
    assert tree.content() == before


@pytest.mark.parametrize("wanted", [{"group": "admins"}, {"state": "absent"}])
def test_who_left_a_group_before_a_failure_is_in_it_again(
    accounts: Accounts, tree: Tree, wanted: dict[str, Any]
) -> None:
    tree.file("/etc/group", "root:x:0:\nadmins:x:100:")
    run(accounts, group="admins", users=["alice", "vpp"])
    before = left(tree)
    accounts.failing["gpasswd --delete vpp"] = RunResult(10, "", "gpasswd: cannot lock /etc/group\n")
    with pytest.raises(HostError, match="cannot lock"):
        run(accounts, **wanted)
    assert sorted(read_groups(tree.root)["admins"].members) == ["alice", "vpp"]
    tree.file("/etc/group", "root:x:0:\nadmins:x:100:alice,vpp")
    assert left(tree) == before


@pytest.mark.parametrize("wanted", [{"group": "admins"}, {"state": "absent"}])
def test_a_group_that_was_removed_before_a_failure_is_there_again(
    accounts: Accounts, tree: Tree, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    run(accounts, group="dataplane", gid=500, users=["alice", "vpp"])
    before = left(tree)

    def fail(_plan: AccessPlan) -> None:
        raise HostError("file", "Could not write.", ["ENOSPC"], "Free space.")

    monkeypatch.setattr(AccessPlan, "_remove_empty_directories", fail)
    with pytest.raises(HostError, match="Could not write"):
        run(accounts, **wanted)
    assert "groupdel dataplane" in accounts.ran and left(tree) == before


def test_what_could_not_be_put_back_is_still_known_to_be_ours(
    accounts: Accounts, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, where neither the directory can be made nor the group be removed again."""
    before = tree.root.read_text("/etc/group")
    accounts.failing = {name: RunResult(1, "", "No space left on device\n") for name in ("gpasswd", "groupdel")}

    def fail(*_args: Any) -> None:
        raise HostError("file", "Could not write.", [], "Free space.")

    with monkeypatch.context() as patch:
        patch.setattr(NodesPlan, "apply", fail)
        with pytest.raises(HostError, match="Could not write") as caught:
            run(accounts, group="dataplane", users=["vpp"])
    assert [line.split(":")[0] for line in caught.value.evidence] == ["NOT put back"] * 2
    accounts.failing.clear()
    run(accounts, group="dataplane", users=["vpp"])
    run(accounts, state="absent")
    assert tree.root.read_text("/etc/group") == before and not tree.root.exists(ACCESS_RECORD)


def test_a_missing_groupadd_says_what_to_install(accounts: Accounts) -> None:
    accounts.failing["groupadd"] = RunResult(127, "", "groupadd: No such file or directory (ENOENT)")
    with pytest.raises(HostError) as caught:
        run(accounts, group="dataplane")
    assert "passwd" in caught.value.remedy


def test_a_udev_that_does_not_answer_is_a_warning(accounts: Accounts) -> None:
    accounts.failing["udevadm"] = RunResult(1, "", "Failed to send reload request\n")
    assert "Failed to send reload request" in run(accounts, group="dataplane")["warnings"][0]
