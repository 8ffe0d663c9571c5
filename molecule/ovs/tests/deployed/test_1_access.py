# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is named can do the job, with exactly what that takes; nobody else can do any part of it."""

from __future__ import annotations

import re
import shlex

import pytest
from live import RUN, connect, on
from traffic import Testpmd
from wires import ends, ping

HOST = "switch"
PORTS = ("0000:00:10.0", "0000:00:11.0")
TESTPMD = "/usr/bin/dpdk-testpmd"
SSH_CONFIG = str(RUN / "ssh_config")


def capabilities(*names: str) -> int:
    numbers = {"dac_read_search": 2, "ipc_lock": 14, "sys_rawio": 17, "sys_admin": 21}
    return sum(1 << numbers[name] for name in names)


def nodes() -> list[str]:
    groups = [on(HOST, f"basename $(readlink /sys/bus/pci/devices/{nic}/iommu_group)").strip() for nic in PORTS]
    return [f"/dev/vfio/{group}" for group in groups] + ["/dev/noiommu"]


def as_user(user: str, command: str):
    return connect(HOST).run(f"su {user} -s /bin/sh -c {shlex.quote(command)}")


def test_nothing_is_open_to_everybody():
    paths = [*nodes(), "/dev/hugepages", TESTPMD]
    modes = dict(line.split() for line in on(HOST, f"stat -c '%n %U:%G:%a' {' '.join(paths)}").splitlines())
    assert modes.pop("/dev/hugepages") == "root:dataplane:1770"
    assert modes.pop(TESTPMD) == "root:dataplane:750"
    assert set(modes.values()) == {"root:dataplane:660"}, modes


@pytest.mark.parametrize("user, outcome", (("alice", 0), ("mallory", 2)))
def test_only_the_named_user_may_open_the_nodes(user, outcome):
    for node in nodes():
        # The pin-and-translate node asks for a capability besides, also of the group.
        if node != "/dev/noiommu" or user == "mallory":
            done = as_user(user, f": <> {node}")
            assert done.rc == outcome and ("ermission denied" in done.stderr) == bool(outcome), (node, done)


def test_the_outsider_is_refused_the_memory_and_the_program():
    for command in ("ls /dev/hugepages", ": > /dev/hugepages/mine", f"{TESTPMD} --version", f"cp {TESTPMD} /tmp/mine"):
        done = as_user("mallory", command)
        assert done.rc != 0 and "ermission denied" in done.stderr, (command, done)


def test_the_outsider_with_a_program_of_his_own_gets_no_port():
    # /tmp/dpdk would be his, and nobody else's DPDK could start without a runtime directory of its own.
    done = as_user(
        "mallory",
        "export XDG_RUNTIME_DIR=$(mktemp -d);"
        f" /usr/local/bin/forwarder -l 0-1 -a {PORTS[0]} --in-memory -- --stats-period=1 < /dev/null",
    )
    assert done.rc != 0
    assert "ermission denied" in done.stdout + done.stderr, done


@pytest.fixture(autouse=True)
def no_pages_left():
    """DPDK leaves its files on the hugetlbfs, and a later user cannot take over those of another."""
    yield
    on(HOST, "rm -f /dev/hugepages/*map_*")


def test_unmodified_testpmd_forwards_as_the_named_user():
    testpmd = Testpmd(SSH_CONFIG, HOST, list(PORTS), "io", user="alice")
    try:
        running = on(HOST, "cat /proc/$(pgrep -x dpdk-testpmd)/status")
        with ends(HOST):
            answered = ping(HOST, 20)
    finally:
        counted = testpmd.finish()
    assert "Selected IOVA mode 'PA'" in testpmd.output
    assert int(re.search(r"^Uid:\s+(\d+)", running, re.MULTILINE)[1]) >= 1000
    granted = int(re.search(r"^CapPrm:\s+(\w+)", running, re.MULTILINE)[1], 16)
    assert granted == capabilities("sys_rawio", "sys_admin", "dac_read_search", "ipc_lock")
    assert answered == 20 and counted["rx"] >= 40 and counted["tx"] >= 40, (answered, counted)


def test_a_service_forwards_with_two_ambient_capabilities_and_no_more():
    on(HOST, "systemctl start forwarder")
    try:
        with ends(HOST):
            answered = ping(HOST, 20)
        running = on(HOST, "cat /proc/$(systemctl show --value -p MainPID forwarder)/status")
    finally:
        on(HOST, "systemctl stop forwarder")
    effective = int(re.search(r"^CapEff:\s+(\w+)", running, re.MULTILINE)[1], 16)
    assert effective == capabilities("sys_rawio", "sys_admin")
    assert answered == 20


def test_root_of_a_container_needs_two_capabilities_and_no_more():
    """What `container` of noiommu_info lists is enough: root that is bounded by it starts the ports."""
    done = connect(HOST).run(
        "timeout 90 prlimit --memlock=unlimited"
        " setpriv --inh-caps=-all --bounding-set=-all,+sys_rawio,+sys_admin"
        f" /usr/local/bin/forwarder -l 0-1 -a {PORTS[0]} -a {PORTS[1]} --in-memory --log-level=lib.eal:info"
        " -- --total-num-mbufs=4096 --forward-mode=io --stats-period=5 < /dev/null"
    )
    assert "Selected IOVA mode 'PA'" in done.stdout + done.stderr
    assert "Port statistics" in done.stdout, done
