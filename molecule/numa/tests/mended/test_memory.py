# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a reboot with nothing but the boot unit: what it did, and what a deploy refuses about memory."""

from __future__ import annotations

import contextlib
import subprocess

from live import RUN, connect, on, playbook

POOLS = [
    {"size": "2M", "count": 64, "node": 0},
    {"size": "2M", "count": 32, "node": 1},
    {"size": "1G", "count": 2, "node": 1},
]


def pools(**node_0) -> list[dict]:
    return [{**POOLS[0], **node_0}, *POOLS[1:]]


def test_the_boot_unit_reserved_the_pages():
    assert connect("numa").service("noiommu-hugepages").is_running
    said = on("numa", "journalctl -b -q --no-pager -o cat -u noiommu-hugepages")
    assert "2M on NUMA node 0: 64 pages" in said and "1G on NUMA node 1: 2 pages" in said


def test_a_shortfall_at_boot_is_a_failed_unit_with_the_nodes_memory():
    script = "/usr/local/lib/noiommu/reserve-hugepages"
    said = on("numa", f"sed 's/ 64 / 999999 /' {script} | sh; echo $?; sh {script} >/dev/null").splitlines()
    assert said[0].startswith("2M on NUMA node 0: SHORTFALL, ")
    assert "of 999999 pages; Node 0 MemFree:" in said[0] and said[-1] == "1"


def test_more_than_the_node_has_free_is_refused_with_its_memory():
    done = playbook("deploy", "numa", noiommu_hugepages=pools(count=970))
    assert done.returncode != 0
    assert "2M on NUMA node 0 need more memory than the host has free" in done.stdout
    assert "/sys/devices/system/node/node0/meminfo: needed 1812 MiB more," in done.stdout


@contextlib.contextmanager
def pages_in_use(count: int):
    """Have a process hold pages of 2 MiB of node 0."""
    script = (
        "import ctypes, mmap, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.syscall(238, 2, ctypes.byref(ctypes.c_ulong(1)), 64)\n"  # set_mempolicy(MPOL_BIND, node 0)
        f"memory = mmap.mmap(-1, {count} << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)\n"  # MAP_HUGETLB
        f"for page in range({count}): memory[page << 21] = 1\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    on("numa", "cat > /run/hold.py", stdin=script)
    command = ["ssh", "-F", str(RUN / "ssh_config"), "numa", "python3 /run/hold.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        try:
            assert held.stdout.readline() == "held\n"
            yield
        finally:
            held.stdin.close()
            held.wait(timeout=60)
            on("numa", "rm /run/hold.py")


def test_pages_in_use_are_never_taken():
    with pages_in_use(20):
        done = playbook("deploy", "numa", noiommu_hugepages=pools(count=10))
    assert done.returncode != 0
    assert "The pool 2M on NUMA node 0 cannot shrink to 10 pages: 20 are in use." in done.stdout


def test_a_mount_with_files_is_not_taken_away_and_a_full_directory_not_hidden():
    on("numa", "touch /srv/huge/2M/mine; mkdir -p /srv/full; touch /srv/full/file")
    mounts = [{"path": "/dev/hugepages-1G", "size": "1G", "group": "dataplane"}, {"path": "/srv/full", "size": "2M"}]
    try:
        done = playbook("deploy", "numa", noiommu_hugepage_mounts=mounts)
    finally:
        on("numa", "rm -r /srv/huge/2M/mine /srv/full")
    assert done.returncode != 0
    assert "/srv/huge/2M has to be unmounted, but it holds files" in done.stdout
    assert "The directory /srv/full is not empty" in done.stdout


def test_nothing_of_all_that_changed_anything():
    done = playbook("verify", "numa,dark")
    assert done.returncode == 0, done.stdout
