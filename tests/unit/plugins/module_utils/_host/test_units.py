# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files make a unit, as `systemd-analyze security --offline=yes --root=` of systemd 252 has them."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import services
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.units import read_unit
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

ETC, USR = "/etc/systemd/system/", "/usr/lib/systemd/system/"


def user(tree: Tree, name: str) -> str:
    unit = read_unit(tree.root, name)
    assert unit is not None
    return unit.last("Service", "User")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("fwd-a-1.service", "fwd-a-1.service.d"),
        ("fwd-a-1.service", "fwd-a-.service.d"),
        ("fwd-a-1.service", "fwd-.service.d"),
        ("fwd-a-1.service", "service.d"),
        ("fwd-a@x-1.service", "fwd-a@.service.d"),
        ("fwd-a@x-1.service", "fwd-@x-1.service.d"),
        ("fwd-a@x-1.service", "fwd-@.service.d"),
        ("fwd-a@x-1.service", "fwd-.service.d"),
        ("alias-a.service", "alias-.service.d"),
        ("alias-a.service", "fwd-a-.service.d"),
    ],
)
def test_a_drop_in_for_units_whose_names_begin_alike_or_for_all(tree: Tree, name: str, folder: str) -> None:
    for fragment in ("fwd-a-1.service", "fwd-a@.service"):
        tree.file(USR + fragment, "[Service]\nUser=vendor")
    tree.link(ETC + "alias-a.service", USR + "fwd-a-1.service")
    assert user(tree, name) == "vendor"
    tree.file(USR + folder + "/10-user.conf", "[Service]\nUser=dropped")
    assert user(tree, name) == "dropped"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("fwd.service", "fwd-.service.d"),
        ("fwd.service", "f-.service.d"),
        ("-fwd.service", "-.service.d"),
        ("fwd-.service", "f-.service.d"),
        ("fwd.service", "socket.d"),
        ("dev-hugepages.mount", "service.d"),
        ("dev-hugepages.mount", "dev-.service.d"),
    ],
)
def test_drop_ins_of_others(tree: Tree, name: str, folder: str) -> None:
    tree.file(USR + name, "[Service]\nUser=vendor")
    tree.file(ETC + folder + "/10-user.conf", "[Service]\nUser=dropped")
    assert user(tree, name) == "vendor"


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (ETC + "fwd-a.service.d", USR + "fwd-a.service.d"),
        (USR + "fwd-a.service.d", USR + "fwd-.service.d"),
        (ETC + "fwd-.service.d", USR + "fwd-a.service.d"),
        (USR + "fwd-.service.d", ETC + "service.d"),
        ("/run/systemd/generator.early/fwd-a.service.d", ETC + "fwd-a.service.d"),
        ("/etc/systemd/system.control/fwd-a.service.d", ETC + "fwd-a.service.d"),
        (USR + "fwd-a.service.d", "/run/systemd/generator.late/fwd-a.service.d"),
    ],
)
def test_of_drop_ins_with_one_name_one_is_read(tree: Tree, winner: str, loser: str) -> None:
    tree.file(USR + "fwd-a.service", "[Service]\nUser=vendor")
    tree.file(loser + "/10-user.conf", "[Service]\nUser=loser\nGroup=loser")
    tree.file(winner + "/10-user.conf", "[Service]\nUser=winner")
    unit = read_unit(tree.root, "fwd-a.service")
    assert unit is not None
    assert (unit.last("Service", "User"), unit.last("Service", "Group")) == ("winner", "")
    tree.file(loser + "/20-user.conf", "[Service]\nUser=later")
    assert user(tree, "fwd-a.service") == "later"


DEFAULT, SYSCONFIG, DEBIAN = services._OVS_SETTINGS


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        ({}, None),
        ({DEFAULT: 'OVS_USER_ID="openvswitch:hugetlbfs"'}, DEFAULT),
        ({DEFAULT: 'OVS_USER_ID="openvswitch:hugetlbfs"', SYSCONFIG: 'OVS_USER_ID="root:root"'}, None),
        ({DEFAULT: 'OVS_USER_ID="root:root"', SYSCONFIG: "OVS_USER_ID=openvswitch:openvswitch"}, SYSCONFIG),
        ({DEFAULT: 'OVS_USER_ID="openvswitch:hugetlbfs"\nOVS_USER_ID=root'}, None),
        ({DEFAULT: 'OVS_USER_ID="openvswitch:hugetlbfs"', SYSCONFIG: '#OVS_USER_ID="root:root"'}, DEFAULT),
        # ovs-ctl gets OPTIONS after the option that the unit makes of OVS_USER_ID.
        ({DEFAULT: 'OPTIONS="--ovs-user=ovs:ovs"', SYSCONFIG: 'OVS_USER_ID="root:root"'}, DEFAULT),
        ({DEFAULT: 'OPTIONS="--ovs-user=ovs:ovs"', SYSCONFIG: 'OPTIONS=""'}, None),
        ({DEFAULT: 'OVS_USER_ID="ovs:ovs"', SYSCONFIG: 'OPTIONS="--mlockall=no --ovs-user=root"'}, None),
        ({DEBIAN: "OVS_CTL_OPTS='--mlockall=no \\\n--ovs-user=ovs'"}, DEBIAN),
        ({DEBIAN: "# OVS_CTL_OPTS='--ovs-user=ovs'\nOVS_CTL_OPTS="}, None),
    ],
)
def test_the_user_of_open_vswitch_is_the_one_that_was_set_last(
    tree: Tree, files: dict[str, str], refused: str | None
) -> None:
    for path, text in files.items():
        tree.file(path, text)
    found = services.ovs_refusals(tree.root)
    assert [refusal.evidence[0].split(":")[0] for refusal in found] == ([refused] if refused else [])


def test_a_unit_that_a_generator_made_late(tree: Tree) -> None:
    tree.file("/run/systemd/generator.late/fwd.service", "[Service]\nUser=late")
    assert user(tree, "fwd.service") == "late"
    tree.file(USR + "fwd.service", "[Service]\nUser=vendor")
    assert user(tree, "fwd.service") == "vendor"


@pytest.mark.parametrize(
    "text,expected",
    [
        ("[Service]\n#Environment=X \\\nUser=dp", "dp"),
        ("[Service]\nUser=d\\\n# a word between\np", "d p"),
        ("[Service]\nUser=dp\\", "dp"),
        ("[Service]\nUser=a\\\\\nUser=dp", "dp"),
        ("[Service]\n; x\\\n\nUser = dp ", "dp"),
    ],
)
def test_a_comment_continues_nothing(tree: Tree, text: str, expected: str) -> None:
    tree.file(USR + "fwd.service", text)
    assert user(tree, "fwd.service") == expected


@pytest.mark.parametrize(
    "value,on", [("full", True), ("y", True), ("t", True), ("no", False), ("", False), ("f", False)]
)
def test_what_counts_as_on(tree: Tree, value: str, on: bool) -> None:
    tree.file(USR + "fwd.service", "[Service]\nPrivateUsers=" + value)
    unit = read_unit(tree.root, "fwd.service")
    assert unit is not None and unit.is_on("PrivateUsers") is on


def test_a_service_is_found_by_the_name_that_an_alias_leads_to(tree: Tree) -> None:
    tree.file(USR + "real.service", "[Service]\nUser=dp")
    tree.link(ETC + "alias.service", USR + "real.service")
    tree.file("/proc/7/cgroup", "0::/system.slice/real.service")
    tree.file("/proc/7/status", "Name:\tfwd\nUid:\t1\nGroups:\t\nCapPrm:\t0")
    unit = read_unit(tree.root, "alias.service")
    assert unit is not None
    assert services.unserved(tree.root, unit, 990, "unlimited", []) == ["process 7 (fwd) lacks the group 990"]
