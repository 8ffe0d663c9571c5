# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services, programs and the hugetlbfs on a host without an IOMMU."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._access import file_capabilities
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import (
    ACCESS_RECORD,
)
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import capabilities
from ansible_collections.baremetal.noiommu.tests.unit.support.access import (
    TESTPMD,
    Accounts,
    clean,
    everything,
    refused,
    run,
    upgrade,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

DROP_IN = "/etc/systemd/system/%s.service.d/60-noiommu.conf"
INSECURE = ["CAP_SYS_RAWIO", "CAP_SYS_ADMIN"]


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
