# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import errno
import json
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import file_capabilities
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import group as access_group
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.declared import parse_memlock
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.nodes import NodesPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.plan import AccessPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    ACCESS_RECORD,
    LIMITS,
    ORIGINALS,
    UDEV_RULES,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.records import dump_json
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import capabilities
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.accounts import read_groups
from ansible_collections.baremetal.noiommu.plugins.modules import dataplane_access
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


class Accounts(Runner):
    """groupadd, usermod and the rest, on the tree's /etc/group."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.ran: list[str] = []
        self.failing: dict[str, RunResult] = {}
        self.owners: dict[str, tuple[int, int]] = {}
        self.attributes: dict[int, bytes] = {}

    def capabilities(self, path: str) -> int:
        """Return what a file's attribute permits."""
        data = self.attributes.get(self.tree.at(path).stat().st_ino)
        return file_capabilities.permitted(data.hex() if data else None, path)

    def mode(self, path: str) -> int:
        """Return a file's permissions."""
        return self.tree.at(path).stat().st_mode & 0o7777

    def run(self, *argv: str) -> RunResult:
        self.ran.append(" ".join(argv))
        for start, result in self.failing.items():
            if self.ran[-1].startswith(start):
                return result
        groups = {group.name: group for group in read_groups(self.tree.root).values()}
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
        lines = ["%s:x:%d:%s" % (group.name, group.gid, ",".join(group.members)) for group in groups.values()]
        self.tree.file("/etc/group", "\n".join(lines))
        return RunResult(0, "", "")


ADDRESS = "0000:00:%02x.0"


def vfio_group(tree: Tree, number: int, name: str | None) -> str:
    """Add a VFIO group with one device and its node, and return the node."""
    tree.pci(ADDRESS % number)
    tree.group(number, ADDRESS % number, name=name, node=None)
    node = "/dev/vfio/%s%d" % ("noiommu-" if name == "vfio-noiommu" else "", number)
    tree.file(node)
    tree.at(node).chmod(0o600)
    return node


def bound(tree: Tree, *addresses: str) -> None:
    """Record that vfio_binding has bound these devices."""
    devices = {address: {"driver": "e1000e", "interfaces": []} for address in addresses}
    tree.file(ORIGINALS, dump_json({"devices": devices, "sriov": {}}))


@pytest.fixture
def accounts(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """A host with two users, a group of its own, and one VFIO group node of each kind, with a device of ours."""
    tree.file("/etc/group", "root:x:0:\nadmins:x:100:alice")
    tree.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nvpp:x:1001:1001::/:/bin/sh")
    owners: dict[str, tuple[int, int]] = {}
    for number, name in ((7, "noiommu"), (0, "vfio-noiommu")):
        vfio_group(tree, number, name)
    bound(tree, ADDRESS % 7, ADDRESS % 0)
    tree.file("/dev/vfio/vfio")
    tree.at("/dev/vfio/vfio").chmod(0o666)
    real_stat = os.stat

    def fake_stat(path: Any, **options: Any) -> os.stat_result:
        found = real_stat(path, **options)
        owner = owners.get(str(path), (0, 0))
        return os.stat_result((*found[:4], *owner, *found[6:]))

    def change_owner(file: Any, uid: int, gid: int) -> None:
        path = os.readlink("/proc/self/fd/%d" % file) if isinstance(file, int) else str(file)
        owners[path] = (uid, gid)
        attributes.pop(real_stat(path).st_ino, None)  # as the kernel does

    def get_attribute(path: Any, _name: str) -> bytes:
        if real_stat(path).st_ino not in attributes:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return attributes[real_stat(path).st_ino]

    attributes: dict[int, bytes] = {}
    monkeypatch.setattr(os, "stat", fake_stat)
    monkeypatch.setattr(os, "chown", change_owner)
    monkeypatch.setattr(os, "fchown", change_owner)
    monkeypatch.setattr(os, "getxattr", get_attribute)
    monkeypatch.setattr(os, "setxattr", lambda file, _name, data: attributes.__setitem__(real_stat(file).st_ino, data))
    monkeypatch.setattr(os, "removexattr", lambda file, _name: attributes.pop(real_stat(file).st_ino))
    found = Accounts(tree)
    found.owners, found.attributes = owners, attributes
    return found


def run(accounts: Accounts, check: bool = False, **params: Any) -> dict[str, Any]:
    given = {name: spec.get("default") for name, spec in dataplane_access.ARGUMENTS.items()}
    given = {**given, "state": "present", **params}
    module = FakeModule(given, check)
    result = dataplane_access.dataplane_access(module, accounts.tree.root, accounts)
    return {**result, "warnings": module.warnings}


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


# --- services, programs and the hugetlbfs, on a host without an IOMMU ---

TESTPMD = "/usr/bin/dpdk-testpmd"
DROP_IN = "/etc/systemd/system/%s.service.d/60-noiommu.conf"
INSECURE = ["CAP_SYS_RAWIO", "CAP_SYS_ADMIN"]


@pytest.fixture
def host(accounts: Accounts, tree: Tree) -> Accounts:
    """With a program, two services, and systemd's mount of the hugetlbfs."""
    tree.file(TESTPMD, b"\x7fELF and /dev/vfio/vfio")
    tree.at(TESTPMD).chmod(0o755)
    tree.file("/usr/lib/systemd/system/fwd.service", "[Service]\nUser=vpp\nExecStart=/usr/bin/fwd \\\n --more")
    tree.file("/usr/lib/systemd/system/ovs-vswitchd.service", "[Service]\nType=forking")
    tree.file("/usr/lib/systemd/system/dev-hugepages.mount", "[Mount]\nWhat=hugetlbfs\nOptions=nosuid,nodev")
    tree.dir("/dev/hugepages")
    tree.at("/dev/hugepages").chmod(0o755)
    tree.file(
        "/proc/1/mountinfo",
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:30 / /dev/hugepages rw,relatime shared:9 - hugetlbfs hugetlbfs rw,pagesize=2M",
    )
    return accounts


def everything(**more: Any) -> dict[str, Any]:
    return {
        "group": "dataplane",
        "services": [{"name": "fwd"}, {"name": "ovs-vswitchd.service", "profile": "ovs"}],
        "binaries": [{"path": TESTPMD}],
        "accept_unsafe": True,
        **more,
    }


def clean(tree: Tree) -> dict[str, str]:
    """The tree's content without directories that only a real host has."""
    return {path: text for path, text in tree.content().items() if text != "dir"}


def test_everything_is_given_in_one_run_and_taken_back_in_another(host: Accounts, tree: Tree) -> None:
    before, owners = clean(tree), dict(host.owners)
    predicted = run(host, check=True, gid=500, **everything())
    assert clean(tree) == before and host.ran == []
    assert run(host, gid=500, **everything()) == predicted
    assert host.ran[-2:] == ["udevadm control --reload", "systemctl daemon-reload"]
    host.ran.clear()
    assert not run(host, gid=500, **everything())["changed"] and host.ran == []
    predicted = run(host, check=True, state="absent")
    assert run(host, state="absent") == predicted
    assert clean(tree) == before
    assert host.mode(TESTPMD) == 0o755 and host.capabilities(TESTPMD) == 0
    assert host.mode("/dev/hugepages") == 0o755
    assert {path: owner for path, owner in host.owners.items() if owner != (0, 0)} == owners
    assert not tree.at(os.path.dirname(DROP_IN % "fwd")).exists()


def test_a_program_with_capabilities_is_executed_by_the_group_alone(host: Accounts) -> None:
    result = run(host, **everything())
    assert host.mode(TESTPMD) == 0o750
    wanted = [*INSECURE, "CAP_DAC_READ_SEARCH", "CAP_IPC_LOCK"]
    assert host.capabilities(TESTPMD) == capabilities.mask(wanted)
    assert result["after"]["binaries"][TESTPMD] == {
        "uid": 0,
        "gid": 990,
        "mode": "0750",
        "capabilities": capabilities.parse(wanted),
    }
    assert host.owners[str(host.tree.at(TESTPMD))] == (0, 990)


def test_the_attribute_is_what_setcap_writes(host: Accounts) -> None:
    # setcap cap_net_raw=ep on Linux 6.1, read back with getfattr -e hex.
    assert file_capabilities.encode(1 << 13) == "0100000200200000000000000000000000000000"


def test_a_service_gets_ambient_capabilities_and_says_why(host: Accounts, tree: Tree) -> None:
    result = run(host, **everything())
    text = tree.root.read_text(DROP_IN % "fwd")
    assert "AmbientCapabilities=CAP_SYS_RAWIO CAP_SYS_ADMIN" in text
    assert "SupplementaryGroups=dataplane" in text and "LimitMEMLOCK=infinity" in text
    assert "After=noiommu-bindings.service" in text
    assert "CapabilityBoundingSet" not in text and "DeviceAllow" not in text
    reasons = {(grant["to"], grant["what"]): grant["why"] for grant in result["grants"]}
    assert "pagemap" in reasons["service fwd.service", "CAP_SYS_ADMIN"]
    assert "not dumpable" in reasons["binary " + TESTPMD, "CAP_DAC_READ_SEARCH"]
    assert ("service fwd.service", "CAP_DAC_READ_SEARCH") not in reasons


def test_a_service_of_root_has_its_capabilities_already(host: Accounts, tree: Tree) -> None:
    result = run(host, **everything())
    text = tree.root.read_text(DROP_IN % "ovs-vswitchd")
    assert "Capabilit" not in text and "SupplementaryGroups" not in text and "LimitMEMLOCK=infinity" in text
    assert {"to": "service ovs-vswitchd.service", "what": "no capability", "why": "it runs as root"} in result["grants"]


def test_what_confines_a_service_is_widened_by_what_it_needs(host: Accounts, tree: Tree) -> None:
    tree.file(
        "/etc/systemd/system/fwd.service.d/10-hardening.conf",
        "[Service]\nCapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_RAWIO\nDevicePolicy=closed",
    )
    tree.file(
        "/etc/systemd/system/ovs-vswitchd.service.d/10-hardening.conf",
        "[Service]\nCapabilityBoundingSet=~CAP_SYS_ADMIN",
    )
    run(host, **everything())
    text = tree.root.read_text(DROP_IN % "fwd")
    assert "CapabilityBoundingSet=CAP_SYS_RAWIO CAP_SYS_ADMIN" in text
    assert "DeviceAllow=char-vfio rw" in text and "DeviceAllow=/dev/vfio/vfio rw" in text
    assert "DeviceAllow=/dev/noiommu rw" in text
    assert "CapabilityBoundingSet=CAP_SYS_ADMIN\n" in tree.root.read_text(DROP_IN % "ovs-vswitchd") + "\n"
    assert not run(host, **everything())["changed"]


@pytest.mark.parametrize("setting", ["DevicePolicy=strict", "DeviceAllow=/dev/null", "ProtectClock=yes"])
def test_whatever_closes_access_to_devices_is_opened_for_those_of_the_backend(
    host: Accounts, tree: Tree, setting: str
) -> None:
    tree.file("/etc/systemd/system/fwd.service.d/10-hardening.conf", "[Service]\n" + setting)
    tree.dir("/sys/class/iommu/dmar0")
    run(host, **everything())
    text = tree.root.read_text(DROP_IN % "fwd")
    assert "DeviceAllow=char-vfio rw" in text and "/dev/noiommu" not in text


def test_with_an_iommu_nobody_gets_a_capability(host: Accounts, tree: Tree) -> None:
    tree.dir("/sys/class/iommu/dmar0")
    result = run(host, **everything(accept_unsafe=False))
    assert host.mode(TESTPMD) == 0o755 and host.capabilities(TESTPMD) == 0
    assert "Capabilit" not in tree.root.read_text(DROP_IN % "fwd")
    why = [grant["why"] for grant in result["grants"] if grant["what"] == "no capability"]
    assert len(why) == 3 and all("IOVA=VA" in reason for reason in why)


def test_an_iommu_that_was_turned_on_takes_the_capabilities_away(host: Accounts, tree: Tree) -> None:
    run(host, **everything())
    tree.dir("/sys/class/iommu/dmar0")
    result = run(host, **everything())
    assert result["changed"] and host.mode(TESTPMD) == 0o755 and host.capabilities(TESTPMD) == 0


def test_a_limit_is_not_lifted_by_a_capability(host: Accounts, tree: Tree) -> None:
    run(host, **everything(memlock=str(1 << 30)))
    assert not host.capabilities(TESTPMD) & capabilities.mask(["CAP_IPC_LOCK"])
    assert "LimitMEMLOCK=1073741824" in tree.root.read_text(DROP_IN % "fwd")


def test_root_power_is_not_given_without_consent(host: Accounts) -> None:
    assert refused(host, **everything(accept_unsafe=False)).code == "unsafe_not_accepted"


def test_capabilities_that_were_there_are_kept_and_come_back(host: Accounts, tree: Tree) -> None:
    inode = tree.at(TESTPMD).stat().st_ino
    host.attributes[inode] = bytes.fromhex(file_capabilities.encode(capabilities.mask(["CAP_NET_RAW"])))
    run(host, **everything())
    assert host.capabilities(TESTPMD) & capabilities.mask(["CAP_NET_RAW", "CAP_SYS_RAWIO"]) == capabilities.mask(
        ["CAP_NET_RAW", "CAP_SYS_RAWIO"]
    )
    run(host, state="absent")
    assert host.capabilities(TESTPMD) == capabilities.mask(["CAP_NET_RAW"])


def upgrade(host: Accounts, tree: Tree) -> None:
    """Put a new file in place as a package manager does."""
    tree.file(TESTPMD + ".new", b"\x7fELF and newer /dev/vfio/vfio")
    tree.at(TESTPMD + ".new").chmod(0o755)
    os.rename(tree.at(TESTPMD + ".new"), tree.at(TESTPMD))
    host.owners.pop(str(tree.at(TESTPMD)), None)


def test_an_upgraded_program_gets_its_capabilities_again(host: Accounts, tree: Tree) -> None:
    run(host, **everything())
    upgrade(host, tree)
    result = run(host, **everything())
    assert result["changed"] and result["before"]["binaries"][TESTPMD]["capabilities"] == []
    assert host.mode(TESTPMD) == 0o750


def test_a_program_that_an_upgrade_replaced_is_left_and_that_is_said(host: Accounts, tree: Tree) -> None:
    run(host, **everything())
    upgrade(host, tree)
    tree.at(TESTPMD).chmod(0o711)
    result = run(host, state="absent")
    assert host.mode(TESTPMD) == 0o711 and host.capabilities(TESTPMD) == 0
    assert TESTPMD in result["warnings"][0] and "replaced" in result["warnings"][0]


def test_what_somebody_else_gave_a_program_stays_and_that_is_said(host: Accounts, tree: Tree) -> None:
    run(host, **everything())
    host.attributes[tree.at(TESTPMD).stat().st_ino] = bytes.fromhex(file_capabilities.encode(1))
    result = run(host, state="absent")
    assert host.capabilities(TESTPMD) == 1 and host.mode(TESTPMD) == 0o755
    assert "changed by somebody" in result["warnings"][0]


def test_a_program_that_is_gone_is_forgotten(host: Accounts, tree: Tree) -> None:
    run(host, **everything())
    tree.remove(TESTPMD)
    assert run(host, state="absent")["changed"]
    assert not tree.root.exists(ACCESS_RECORD)


def test_what_is_listed_no_more_is_taken_back(host: Accounts, tree: Tree) -> None:
    run(host, **everything())
    run(host, **everything(services=[], binaries=[], hugetlbfs=False))
    assert host.mode(TESTPMD) == 0o755 and host.capabilities(TESTPMD) == 0
    assert not tree.root.exists(os.path.dirname(DROP_IN % "fwd"))
    assert host.mode("/dev/hugepages") == 0o755


def test_a_failure_at_the_last_step_leaves_the_host_as_it_was(
    host: Accounts, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, owners = clean(tree), dict(host.owners)

    def fail(*_args: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "setxattr", fail)
    with pytest.raises(HostError) as caught:
        run(host, **everything())
    assert "Operation not permitted" in caught.value.message
    assert clean(tree) == before and host.mode(TESTPMD) == 0o755
    assert host.mode("/dev/hugepages") == 0o755 and host.mode("/dev/vfio/7") == 0o600
    assert {path: owner for path, owner in host.owners.items() if owner != (0, 0)} == owners


def test_the_hugetlbfs_is_the_groups_now_and_at_boot(host: Accounts, tree: Tree) -> None:
    result = run(host, **everything())
    assert result["after"]["nodes"]["/dev/hugepages"] == {"uid": 0, "gid": 990, "mode": "1770"}
    text = tree.root.read_text("/etc/systemd/system/dev-hugepages.mount.d/60-noiommu.conf")
    assert text.splitlines()[1:] == ["[Mount]", "Options=nosuid,nodev,mode=1770,gid=990"]


def test_a_hugetlbfs_that_somebody_else_has_stays_his(host: Accounts, tree: Tree) -> None:
    host.owners[str(tree.at("/dev/hugepages"))] = (0, 100)
    result = run(host, **everything())
    assert host.mode("/dev/hugepages") == 0o755 and "/dev/hugepages is left" in result["warnings"][0]
    assert not tree.root.exists("/etc/systemd/system/dev-hugepages.mount.d")


def test_a_hugetlbfs_whose_group_is_declared_elsewhere_keeps_its_mode(host: Accounts, tree: Tree) -> None:
    host.owners[str(tree.at("/dev/hugepages"))] = (0, 100)
    result = run(host, **everything(group="admins"))
    assert host.mode("/dev/hugepages") == 0o755 and result["warnings"] == []
    assert not run(host, **everything(group="admins"))["changed"]
    run(host, state="absent")
    assert host.owners[str(tree.at("/dev/hugepages"))] == (0, 100)


def test_the_custom_profile_gives_what_is_listed_on_every_backend(host: Accounts, tree: Tree) -> None:
    tree.dir("/sys/class/iommu/dmar0")
    given = {"profile": "custom", "capabilities": ["net_admin", "CAP_SYS_NICE"]}
    run(host, **everything(binaries=[], services=[{"name": "fwd", **given}]))
    assert "AmbientCapabilities=CAP_NET_ADMIN CAP_SYS_NICE" in tree.root.read_text(DROP_IN % "fwd")


def test_a_running_service_that_has_to_be_restarted_is_named(host: Accounts, tree: Tree) -> None:
    tree.file("/proc/77/cgroup", "0::/system.slice/fwd.service")
    tree.file("/proc/77/status", "Name:\tfwd\nUid:\t1001\t1001\nGroups:\t1001\nCapPrm:\t0000000000000000")
    tree.file("/proc/77/limits", "Max locked memory         8388608              8388608              bytes")
    restart = run(host, **everything())["restart"]
    assert [service["service"] for service in restart] == ["fwd.service"]
    assert "CAP_SYS_RAWIO" in restart[0]["evidence"][0] and "8388608" in restart[0]["evidence"][0]
    tree.file("/proc/77/status", "Name:\tfwd\nUid:\t1001\t1001\nGroups:\t990\nCapPrm:\t0000000000220000")
    tree.file("/proc/77/limits", "Max locked memory         unlimited            unlimited            bytes")
    assert run(host, **everything())["restart"] == []


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"services": [{"name": "nginx"}]}, "service", "no systemd service nginx.service"),
        ({"services": [{"name": "../x"}]}, "service", "not the name"),
        ({"binaries": [{"path": "/usr/bin/none"}]}, "binary", "no program /usr/bin/none"),
        ({"binaries": [{"path": "testpmd"}]}, "binary", "not an absolute path"),
        ({"profile": "custom"}, "profile", "says nothing"),
        ({"profile": "custom", "capabilities": ["CAP_FLY"]}, "capability", "no capability CAP_FLY"),
        ({"backend": "builtin"}, "backend_unavailable", "no-IOMMU mode"),
    ],
)
def test_mistakes_in_the_declaration(host: Accounts, given: dict[str, Any], code: str, said: str) -> None:
    error = refused(host, **everything(**given))
    assert error.code == code and said in error.message


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("[Service]\nUser=vpp\nPrivateDevices=yes", "sees no devices"),
        ("[Service]\nUser=vpp\nPrivateUsers=true", "user namespace"),
        (b"", "masked"),
    ],
)
def test_services_that_cannot_be_served(host: Accounts, tree: Tree, unit: str | bytes, said: str) -> None:
    tree.file("/etc/systemd/system/fwd.service", unit)
    assert said in refused(host, **everything()).message


def own(host: Accounts, path: str, uid: int) -> None:
    host.owners[str(host.tree.at(path))] = (uid, 0)


@pytest.mark.parametrize(
    ("owner", "mode", "folder_owner", "refusals"),
    [
        (0, 0o755, 0, []),
        (1001, 0o755, 1001, []),  # the service's own user
        (1000, 0o755, 0, ["/opt/fwd/fwd: uid 1000, mode 0755"]),
        (0, 0o757, 0, ["/opt/fwd/fwd: uid 0, mode 0757"]),
        (0, 0o775, 0, ["/opt/fwd/fwd: uid 0, mode 0775"]),
        (0, 0o755, 1000, ["/opt/fwd: uid 1000, mode 0755"]),
    ],
)
def test_a_service_whose_program_somebody_else_can_replace(
    host: Accounts, tree: Tree, owner: int, mode: int, folder_owner: int, refusals: list[str]
) -> None:
    tree.file("/etc/systemd/system/fwd.service", "[Service]\nUser=vpp\nExecStart=/opt/fwd/fwd --more")
    tree.file("/opt/fwd/fwd", b"\x7fELF")
    tree.at("/opt/fwd/fwd").chmod(mode)
    own(host, "/opt/fwd/fwd", owner)
    own(host, "/opt/fwd", folder_owner)
    if refusals:
        error = refused(host, **everything())
        assert error.code == "service" and error.evidence == refusals
    else:
        assert run(host, **everything())["changed"]
    # With an IOMMU it gets no capability, and there is nothing to win.
    tree.dir("/sys/class/iommu/dmar0")
    run(host, **everything())


def test_an_open_vswitch_that_changes_its_user_cannot_use_physical_addresses(host: Accounts, tree: Tree) -> None:
    tree.file("/etc/openvswitch/default.conf", '# defaults\nOVS_USER_ID="openvswitch:hugetlbfs"')
    error = refused(host, **everything())
    assert "CAP_SYS_ADMIN" in error.message and "openvswitch:hugetlbfs" not in error.message
    tree.dir("/sys/class/iommu/dmar0")
    assert run(host, **everything())["changed"]


def damage_script(host: Accounts, tree: Tree) -> None:
    tree.file(TESTPMD, "#!/bin/sh")


def damage_owner(host: Accounts, tree: Tree) -> None:
    host.owners[str(tree.at(TESTPMD))] = (1000, 0)


def damage_links(host: Accounts, tree: Tree) -> None:
    os.link(tree.at(TESTPMD), tree.at("/usr/bin/another-name"))


def damage_parent(host: Accounts, tree: Tree) -> None:
    host.owners[str(tree.at("/usr"))] = (1000, 0)


def damage_writable(host: Accounts, tree: Tree) -> None:
    tree.at("/usr/bin").chmod(0o1777)


def damage_group_writable(host: Accounts, tree: Tree) -> None:
    tree.at("/usr/bin").chmod(0o775)


def damage_content(host: Accounts, tree: Tree) -> None:
    """As a copy of bash by another name."""
    tree.file(TESTPMD, b"\x7fELF\0execve\0libc.so.6\0")


def damage_suid(host: Accounts, tree: Tree) -> None:
    tree.at(TESTPMD).chmod(0o4755)


def damage_nosuid(host: Accounts, tree: Tree) -> None:
    tree.file("/proc/1/mountinfo", "22 1 8:1 / /usr rw,nosuid shared:1 - ext4 /dev/sda1 rw")


def damage_cmdline(host: Accounts, tree: Tree) -> None:
    tree.file("/proc/cmdline", "quiet no_file_caps")


def damage_shell(host: Accounts, tree: Tree) -> None:
    tree.file("/etc/shells", "# shells\n" + TESTPMD)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_script, "not an ELF program"),
        (damage_owner, "does not belong to root"),
        (damage_links, "has another name"),
        (damage_parent, "Somebody other than root"),
        (damage_writable, "Somebody other than root"),
        (damage_group_writable, "Somebody other than root"),
        (damage_content, "not a data plane application"),
        (damage_suid, "changes its user"),
        (damage_nosuid, "mounted nosuid"),
        (damage_cmdline, "ignores the capabilities of files"),
        (damage_shell, "never restricted to one group"),
    ],
)
def test_programs_that_cannot_be_given_capabilities(host: Accounts, tree: Tree, damage: Any, said: str) -> None:
    damage(host, tree)
    assert said in refused(host, **everything()).message


@pytest.mark.parametrize("name", ["bash", "python3.11", "sudo", "busybox", "ld-linux-x86-64.so.2", "env"])
def test_programs_that_run_anything_are_not_given_away(host: Accounts, tree: Tree, name: str) -> None:
    tree.file("/usr/bin/" + name, b"\x7fELF")
    assert (
        "runs any command it is given" in refused(host, **everything(binaries=[{"path": "/usr/bin/" + name}])).message
    )


CUSTOM = {"profile": "custom", "capabilities": ["net_raw"]}


def test_a_program_of_the_base_system_is_never_given_to_one_group(host: Accounts, tree: Tree) -> None:
    tree.file("/usr/bin/cat", b"\x7fELF")
    tree.file("/var/lib/dpkg/info/coreutils.list", "/.\n/bin\n/bin/cat\n/bin/cp")
    tree.file("/var/lib/dpkg/status", "Package: core\n\nPackage: coreutils\nEssential: yes\n\nPackage: x")
    listed = everything(binaries=[{"path": "/usr/bin/cat", **CUSTOM}])
    error = refused(host, **listed)
    assert "part of the system" in error.message and "coreutils (Essential: yes)" in error.evidence[0]
    tree.file("/var/lib/dpkg/status", "Package: coreutils\nPriority: important\n")
    assert "Priority: important" in refused(host, **listed).evidence[0]


@pytest.mark.parametrize("name", [b"execvp", b"posix_spawn", b"system", b"forkpty"])
def test_a_program_that_starts_others_is_no_data_plane(host: Accounts, tree: Tree, name: bytes) -> None:
    tree.file("/usr/bin/mux", b"\x7fELF\0libc.so.6\0%s\0" % name)
    assert (
        "programs that it starts" in refused(host, **everything(binaries=[{"path": "/usr/bin/mux", **CUSTOM}])).message
    )


def test_a_forwarder_without_vfio_gets_what_it_asks_for(host: Accounts, tree: Tree) -> None:
    """As one by AF_XDP: of a package that is nobody's base, it starts nothing."""
    tree.file("/usr/bin/xdp", b"\x7fELF\0libxdp.so.1\0filesystem\0")
    tree.file("/var/lib/dpkg/info/xdp.list", "/usr/bin/xdp")
    tree.file("/var/lib/dpkg/status", "Package: xdp\nPriority: optional\n")
    run(host, **everything(binaries=[{"path": "/usr/bin/xdp", **CUSTOM}]))
    assert host.capabilities("/usr/bin/xdp") == capabilities.mask(["CAP_NET_RAW"])


def test_a_program_that_was_replaced_since_it_was_checked_gets_nothing(
    host: Accounts, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, apply = clean(tree), NodesPlan.apply

    def replace(*args: Any) -> None:
        upgrade(host, tree)
        apply(*args)

    monkeypatch.setattr(NodesPlan, "apply", replace)
    with pytest.raises(HostError, match="was replaced") as caught:
        run(host, **everything())
    assert caught.value.code == "file_capabilities"
    assert host.mode(TESTPMD) == 0o755 and host.capabilities(TESTPMD) == 0
    assert {**clean(tree), TESTPMD: before[TESTPMD]} == before


def test_a_filesystem_without_attributes(host: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any) -> bytes:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "getxattr", fail)
    assert "stores no extended attributes" in refused(host, **everything()).remedy


def test_an_older_record_is_still_understood(host: Accounts, tree: Tree) -> None:
    tree.file("/etc/group", "root:x:0:\ndataplane:x:990:vpp")
    record = {"version": 1, "group": "dataplane", "group_made": True, "users_added": ["vpp"]}
    tree.file(ACCESS_RECORD, json.dumps(record))
    run(host, state="absent")
    assert "dataplane" not in read_groups(tree.root)


@pytest.mark.parametrize(
    "wanted", [{"state": "absent"}, {"group": "dataplane", "users": ["vpp"], "services": [{"name": "other"}]}]
)
def test_a_run_killed_anywhere_is_finished_by_the_next(
    accounts: Accounts, tree: Tree, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    for name in ("forwarder", "other"):
        tree.file("/etc/systemd/system/%s.service" % name, "[Service]\nExecStart=/usr/bin/fwd")
    for folder in ("/var/lib", "/etc/security/limits.d", "/etc/udev/rules.d"):
        tree.dir(folder)
    pristine = left(tree)
    wanted = {**wanted, "accept_unsafe": True}
    first = {
        **wanted,
        "state": "present",
        "group": "dataplane",
        "users": ["alice", "vpp"],
        "services": [{"name": "forwarder"}],
    }
    run(accounts, **first)
    run(accounts, **wanted)
    finished = left(tree)
    run(accounts, state="absent")
    killer = Killer(monkeypatch, (accounts, "run"))
    for steps in killer.each(lambda: run(accounts, **first), lambda: run(accounts, **wanted)):
        run(accounts, **wanted)
        assert left(tree) == finished, steps
        assert not run(accounts, **wanted)["changed"]
        run(accounts, state="absent")
        assert left(tree) == pristine, steps
