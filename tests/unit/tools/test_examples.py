# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of inventories are read as Ansible reads them, and declare what a deploy accepts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

COLLECTION = Path(__file__).resolve().parents[3]
EXAMPLES = COLLECTION / "docs/examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/inventory.yml"))
CHECK = [{"hosts": "noiommu", "gather_facts": False, "tasks": [{"baremetal.noiommu.declaration": None}]}]


def ansible(what: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ansible", what, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTION / ".cache/unit"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
            "ANSIBLE_FORKS": "2",
        },
    )


def declared(path: Path) -> dict[str, dict[str, object]]:
    """Return the variables of each host of the group, a range of equal hosts by its first and last."""
    done = ansible("inventory", "-i", path / "inventory.yml", "--list")
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    inventory = json.loads(done.stdout)
    below, hosts = ["noiommu"], set()
    for group in below:
        below += inventory[group].get("children", [])
        hosts |= set(inventory[group].get("hosts", []))
    return {host: inventory["_meta"]["hostvars"][host] for host in sorted(hosts)}


def few(hosts: dict[str, dict[str, object]]) -> list[str]:
    """One host for each declaration: four hundred equal ones are checked by one."""
    return list({json.dumps(variables, sort_keys=True): host for host, variables in hosts.items()}.values())


def check(path: Path, work: Path, limit: list[str]) -> subprocess.CompletedProcess[str]:
    (work / "check.yml").write_text(yaml.safe_dump(CHECK))
    return ansible("playbook", "-i", path / "inventory.yml", work / "check.yml", "--limit", ",".join(limit))


def test_there_is_one_for_each_kind_of_fleet_and_the_page_lists_its_files() -> None:
    assert NAMES == ["mixed", "prebuilt", "small", "sriov"]
    page = (COLLECTION / "docs/examples.md").read_text(encoding="utf-8")
    for path in EXAMPLES.rglob("*.*"):
        assert "(%s)" % path.relative_to(COLLECTION / "docs") in page


@pytest.mark.parametrize("name", NAMES)
def test_what_it_declares_is_accepted(name: str, tmp_path: Path) -> None:
    hosts = declared(EXAMPLES / name)
    for host, variables in hosts.items():
        assert {"noiommu_devices", "noiommu_hugepages", "noiommu_access"} <= set(variables), host
    done = check(EXAMPLES / name, tmp_path, few(hosts))
    assert done.returncode == 0 and done.stdout.count("ok=1 ") == len(few(hosts)), done.stdout


def test_a_mistake_in_one_would_be_noticed(tmp_path: Path) -> None:
    copied = shutil.copytree(EXAMPLES / "small", tmp_path / "small")
    declaration = copied / "group_vars/noiommu.yml"
    declaration.write_text(declaration.read_text().replace("memlock:", "memlok:"))
    done = check(copied, tmp_path, ["edge1.example.com"])
    assert done.returncode != 0 and "noiommu_access.memlok" in done.stdout


def test_only_hosts_without_an_iommu_accept_what_is_insecure() -> None:
    hosts = declared(EXAMPLES / "mixed")
    accepting = {host[:4] for host, variables in hosts.items() if variables.get("noiommu_accept_unsafe")}
    assert accepting == {"edge", "lab1", "lab2", "lab3", "lab4"} and len(hosts) == 20 + 402 + 4


def test_the_build_host_is_listed_and_is_no_host_of_the_data_plane() -> None:
    hosts = declared(EXAMPLES / "prebuilt")
    (builder,) = {str(variables["noiommu_kmod_build_host"]) for variables in hosts.values()}
    listing = ansible("inventory", "-i", EXAMPLES / "prebuilt/inventory.yml", "--host", builder)
    assert listing.returncode == 0 and builder not in hosts
