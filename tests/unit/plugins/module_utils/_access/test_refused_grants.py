# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services and programs that cannot be granted what they need, and runs that are killed."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access.nodes import NodesPlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    ACCESS_RECORD,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import capabilities
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.accounts import read_groups
from ansible_collections.baremetal.noiommu.tests.unit.support.access import (
    TESTPMD,
    Accounts,
    clean,
    everything,
    refused,
    run,
    upgrade,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer, left
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"services": [{"name": "nginx"}]}, "service", "no systemd service nginx.service"),
        ({"services": [{"name": "../x"}]}, "service", "not the name"),
        ({"binaries": [{"path": "/usr/bin/none"}]}, "binary", "no program /usr/bin/none"),
        ({"binaries": [{"path": "testpmd"}]}, "binary", "not an absolute path"),
        ({"profile": "custom"}, "profile", "lists no capabilities"),
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
