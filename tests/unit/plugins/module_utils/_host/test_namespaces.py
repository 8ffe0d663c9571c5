# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network namespaces of a host: each is found by whatever keeps it, and looked at once."""

from __future__ import annotations

import errno
import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import namespaces, netlink
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.mounts import Mount
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.netlink import Link
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


def test_only_what_is_on_top_of_another_namespaces_interface_counts() -> None:
    links = [
        Link("lo", None, None, False),
        Link("eth0", "macvlan", 2, True),
        Link("eth1", "veth", 3, True),
        Link("eth0.7", "vlan", 2, False),
        Link("ip0", "ipvlan", 2, True),
        Link("sec0", "macsec", 4, True),
        Link("sec1", "macsec", 4, False),
        Link("ib0", "ipoib", None, False),
        Link("ib0.8001", "ipoib", 5, False),
    ]
    assert namespaces.on_top(links, "c1") == {
        2: ["macvlan eth0 in c1", "ipvlan ip0 in c1"],
        4: ["macsec sec0 in c1"],
        5: ["ipoib ib0.8001 in c1"],
    }


def test_the_running_kernel_says_which_device_an_interface_belongs_to() -> None:
    root = Root("/")
    expected = {
        name: root.realpath("/sys/class/net", name, "device")
        for name in root.listdir("/sys/class/net")
        if root.exists("/sys/class/net", name, "device")
    }
    found = {what.split()[0]: path for path, what in namespaces.of_devices(root, netlink.read_links(), "ours")}
    assert found == expected


def in_namespaces(tree: Tree, **numbers: int) -> None:
    for pid, number in numbers.items():
        tree.dir("/proc/%s/ns" % pid.strip("p"))
        tree.at("/proc/%s/ns/net" % pid.strip("p")).symlink_to("net:[%d]" % number)


def test_each_other_namespace_is_looked_at_once(tree: Tree) -> None:
    in_namespaces(tree, self=1, p1=1, p20=2, p21=2, p30=3)
    tree.dir("/proc/40/ns")
    assert namespaces.namespaces(tree.root) == {
        "net:[2]": ["/proc/20/ns/net", "/proc/21/ns/net"],
        "net:[3]": ["/proc/30/ns/net"],
    }


def test_namespaces_without_a_process_are_found_by_their_mounts(tree: Tree) -> None:
    in_namespaces(tree, self=1, p1=1, p20=2)
    tree.file(
        "/proc/1/mountinfo",
        "\n".join(
            "22 1 0:4 %s %s rw shared:1 - nsfs nsfs rw" % mount
            for mount in (
                ("net:[1]", "/run/netns/host"),
                ("net:[2]", "/run/docker/netns/2"),
                ("net:[3]", "/run/netns/my\\040own"),
                ("mnt:[4]", "/run/snapd/ns/x.mnt"),
            )
        ),
    )
    found = namespaces.namespaces(tree.root)
    assert found == {"net:[2]": ["/proc/20/ns/net", "/run/docker/netns/2"], "net:[3]": ["/run/netns/my own"]}
    assert namespaces._where(tree.root, "/run/netns/my own") == "the network namespace /run/netns/my own"


def test_a_namespace_that_a_thread_a_descriptor_or_another_mount_namespace_keeps_is_found(tree: Tree) -> None:
    in_namespaces(tree, self=1, p1=1, p20=1)
    for link, target in (
        ("/proc/1/ns/mnt", "mnt:[1]"),
        ("/proc/20/ns/mnt", "mnt:[2]"),
        ("/proc/20/task/20/ns/net", "net:[1]"),
        ("/proc/20/task/21/ns/net", "net:[2]"),
        ("/proc/20/fd/4", "net:[3]"),
        ("/proc/20/fd/5", "mnt:[4]"),
        ("/proc/20/fd/6", "/run/netns/x"),
    ):
        tree.at(link).parent.mkdir(parents=True, exist_ok=True)
        tree.at(link).symlink_to(target)
    tree.file("/proc/20/mountinfo", "22 1 0:4 net:[5] /run/docker/netns/5 rw shared:1 - nsfs nsfs rw")
    tree.file("/proc/20/comm", "snap")
    found = namespaces.namespaces(tree.root)
    assert found == {
        "net:[2]": ["/proc/20/task/21/ns/net"],
        "net:[3]": ["/proc/20/fd/4"],
        "net:[5]": ["/proc/20/root/run/docker/netns/5"],
    }
    assert [namespaces._where(tree.root, paths[0]) for paths in found.values()] == [
        "the namespace of process 20 (snap)",
        "the namespace that process 20 (snap) keeps",
        "the namespace that process 20 (snap) keeps",
    ]


@pytest.mark.parametrize("is_ending", [True, False])
def test_of_a_process_that_is_ending_another_one_shows_the_mounts(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, is_ending: bool
) -> None:
    in_namespaces(tree, self=1, p1=1, p20=1, p21=1)
    for pid, number in ((1, 1), (20, 2), (21, 2)):
        tree.at("/proc/%d/ns/mnt" % pid).symlink_to("mnt:[%d]" % number)
    tree.file("/proc/21/mountinfo", "22 1 0:4 net:[5] /run/docker/netns/5 rw shared:1 - nsfs nsfs rw")
    read = namespaces.read_mounts

    def reading(root: Root, table: str) -> list[Mount]:
        if table != "/proc/20/mountinfo":
            return read(root, table)
        if is_ending:
            tree.at("/proc/20/ns/mnt").unlink()
        raise HostError("unreadable", "EINVAL")

    monkeypatch.setattr(namespaces, "read_mounts", reading)
    if is_ending:
        assert namespaces.namespaces(tree.root) == {"net:[5]": ["/proc/21/root/run/docker/netns/5"]}
    else:
        with pytest.raises(HostError, match="EINVAL"):
            namespaces.namespaces(tree.root)


@pytest.fixture
def there(tree: Tree) -> tuple[str, str]:
    """Something that can be opened as a namespace, and the name that it has as one."""
    tree.file("/there")
    path = tree.root.path("/there")
    return "net:[%d]" % os.stat(path).st_ino, path


def test_a_namespace_is_entered_by_whatever_is_left_of_it(
    there: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = []
    monkeypatch.setattr(namespaces, "_setns", entered.append)
    monkeypatch.setattr(namespaces, "read_links", lambda: [Link("eth0", "macvlan", 2, True)])
    name, path = there
    assert namespaces._links_in(name, [path + "-gone", path], "c1") and len(entered) == 1
    assert namespaces._links_in(name, [path + "-gone"], "c1") == [] and len(entered) == 1


def test_a_namespace_that_cannot_be_entered_is_not_an_empty_one(
    there: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(namespaces, "_setns", refuse)
    name, path = there
    with pytest.raises(HostError) as caught:
        namespaces._links_in(name, [path], "the namespace of process 7 (pause)")
    assert "process 7 (pause)" in caught.value.message and "Operation not permitted" in caught.value.message
    assert caught.value.evidence and "become: true" in caught.value.remedy
    with pytest.raises(HostError, match="something else is at"):
        namespaces._links_in("net:[1]", [path], "the network namespace /run/netns/blue")


def test_the_running_kernel_is_asked_without_a_failure() -> None:
    found = namespaces.look_elsewhere(Root("/"))
    assert all(isinstance(lines, list) for lines in found.on_top.values())
    assert all(path.startswith("/sys/") for path, _what in found.devices)
    assert "lo" in [link.name for link in netlink.read_links()]
    namespaces.ensure_ours(Root("/"))
