# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift made by hand on one host: verify finds exactly it, with Ansible and without, and deploy mends exactly it."""

from __future__ import annotations

import re

import pytest
from live import hosts, nics, on, playbook

HOST = "trixie"
PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


def changed(output: str) -> dict[str, int]:
    """Return how many tasks changed each host, from the recap."""
    recap = output.partition("PLAY RECAP")[2]
    return {name: int(count) for name, count in re.findall(r"^(\S+)\s+: .*\bchanged=(\d+)", recap, re.MULTILINE)}


def said_by_the_host(name: str) -> tuple[int, str]:
    """Return the exit code and the line of noiommu-verify, which needs no Ansible."""
    line, _end, code = on(name, "noiommu-verify; echo $?").strip().rpartition("\n")
    return int(code), line


@pytest.fixture(scope="module")
def verified() -> str:
    """Drift: a device given back to its driver, and pages taken away."""
    nic = nics(HOST)[0]
    on(HOST, f"echo {nic} > /sys/bus/pci/drivers/vfio-pci/unbind; echo 40 > {PAGES}")
    done = playbook("verify", "noiommu")
    assert done.returncode != 0, done.stdout
    return done.stdout


def test_verify_finds_exactly_it(verified):
    failed = re.findall(r"^fatal: \[(\S+)\]: .*\"msg\": \"(.*?)\"", verified, re.MULTILINE)
    assert [name for name, _said in failed] == [HOST], verified
    said = failed[0][1]
    assert said.startswith(f"{HOST}: drifted: ") and "hugepages: 2M: 40 instead of 96" in said, said
    assert nics(HOST)[0] in said and nics(HOST)[1] not in said, said
    assert changed(verified) == {**dict.fromkeys(hosts(), 0), HOST: changed(verified)[HOST]}


def test_the_hosts_say_the_same_without_ansible(verified):
    code, said = said_by_the_host(HOST)
    assert code == 1, said
    assert nics(HOST)[0] in said and "40 pages instead of 96" in said, said
    for name in set(hosts()) - {HOST}:
        code, said = said_by_the_host(name)
        assert code == 0 and said.startswith("OK: "), said


def test_deploy_mends_exactly_it(verified):
    done = playbook("deploy", "noiommu")
    assert done.returncode == 0, done.stdout
    assert changed(done.stdout) == {**dict.fromkeys(hosts(), 0), HOST: 2}, done.stdout
    assert said_by_the_host(HOST)[0] == 0


def test_verify_finds_nothing_any_more(verified):
    done = playbook("verify", "noiommu")
    assert done.returncode == 0 and set(changed(done.stdout).values()) == {0}, done.stdout
