# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What starts Ansible in other ways than ansible-playbook: each mends a host and finds the others converged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Host
from simulated import CACHE, Fleet, run

CONFIG = ROOT / "docs/examples/ansible.cfg"
DEPLOY, REPORT = "baremetal.noiommu.deploy", "baremetal.noiommu.report"
HERE = Path(sys.executable).parent


def engine(name: str) -> Path:
    """Return where an engine's programs are."""
    return Path(os.environ["NOIOMMU_" + name])


def recap(text: str) -> dict[str, dict[str, int]]:
    """Return the numbers that Ansible prints of each host at the end."""
    lines = re.findall(r"^(\S+) +: (ok=.*)$", text, re.MULTILINE)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", rest)} for name, rest in lines}


def judge(numbers: dict[str, dict[str, int]], mended: str, text: str) -> None:
    """Each host was reached, nothing failed, and one was mended."""
    assert set(numbers) == {"host0000", "host0001"}, text
    for name, counted in numbers.items():
        assert counted["failed"] == counted["unreachable"] == 0, text
        assert (counted["changed"] > 0) is (name == mended), text


def play(fleet: Fleet, programs: Path, *args: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook."""
    return subprocess.run(
        [str(programs / "ansible-playbook"), *map(str, args)],
        env=fleet.environment(CONFIG, ANSIBLE_NOCOLOR="1", **settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_ansible_runner(fleet: Fleet, hosts: dict[str, Host], tmp_path: Path) -> None:
    """As AWX runs it: a private data directory, its settings in env, events instead of output."""
    inventory = json.loads(fleet.inventory(2).read_text(encoding="utf-8"))
    for path, content in {
        "inventory/hosts.json": json.dumps(inventory),
        "env/envvars": yaml.safe_dump({"ANSIBLE_COLLECTIONS_PATH": str(CACHE / "collections")}),
        "env/settings": yaml.safe_dump({"idle_timeout": 600}),
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    (tmp_path / "project").mkdir()
    hosts["host0001"].drift()
    programs = engine("RUNNER")
    done = subprocess.run(
        [programs / "ansible-runner", "run", tmp_path, "-p", DEPLOY, "--ident", "one", "--quiet"],
        env={**fleet.environment(CONFIG), "PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    artifacts = tmp_path / "artifacts/one"
    text = (artifacts / "stdout").read_text(encoding="utf-8") + done.stderr
    assert done.returncode == 0 and (artifacts / "status").read_text() == "successful", text
    events = [json.loads(path.read_text()) for path in (artifacts / "job_events").glob("*.json")]
    (stats,) = [event["event_data"] for event in events if event["event"] == "playbook_on_stats"]
    counted = {
        name: {key: stats[there].get(name, 0) for key, there in (("failed", "failures"), ("unreachable", "dark"))}
        for name in stats["ok"]
    }
    judge(
        {name: {**numbers, "changed": stats["changed"].get(name, 0)} for name, numbers in counted.items()},
        "host0001",
        text,
    )
    assert hosts["host0001"].is_mended
    shown = [
        event["event_data"]["res"]["msg"]
        for event in events
        if event.get("event_data", {}).get("task") == "Show the state of the host" and "res" in event["event_data"]
    ]
    assert len(shown) == 2 and all("backend dkms" in str(message) for message in shown)


def test_mitogen(fleet: Fleet, hosts: dict[str, Host]) -> None:
    """Its strategy in place of linear; modules run in a Python that stays on the host."""
    programs = engine("MITOGEN")
    plugins = next(programs.parent.glob("lib/python3*/site-packages/ansible_mitogen/plugins/strategy"))
    settings = {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}
    hosts["host0000"].drift()
    done = play(fleet, programs, "-i", fleet.inventory(2), DEPLOY, **settings)
    judge(recap(done.stdout), "host0000", done.stdout)
    assert done.returncode == 0 and hosts["host0000"].is_mended


PULLED = {
    "local.yml": [{"import_playbook": DEPLOY}],
    "inventory.yml": {"noiommu": {"hosts": {"edge1": None, "edge2": None}, "vars": {"ansible_connection": "local"}}},
}


def test_ansible_pull(fleet: Fleet, hosts: dict[str, Host], tmp_path: Path) -> None:
    """On the host itself: it gets the declaration from git, and finds itself in the inventory by its name."""
    host = hosts["host0002"]
    declared = json.loads(fleet.inventory(1).read_text(encoding="utf-8"))["noiommu"]["vars"]
    repository = host.root / "srv/declaration"
    repository.mkdir(parents=True)
    for name, content in PULLED.items():
        (repository / name).write_text(yaml.safe_dump(content))
    (repository / "group_vars").mkdir()
    (repository / "group_vars/noiommu.yml").write_text(
        yaml.safe_dump({name: value for name, value in declared.items() if name.startswith("noiommu_")})
    )
    author = ["-c", "user.name=operator", "-c", "user.email=operator@example.com"]
    for words in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", "declare"]):
        run("git", "-C", repository, *words)
    # What an operator would have installed on the host: Ansible and the collection.
    for there in {str(ROOT), sys.base_prefix} - {"/usr"}:
        (host.root / there.lstrip("/")).mkdir(parents=True, exist_ok=True)
        run("mount", "--rbind", there, str(host.root) + there)
    (host.root / "dev/shm").mkdir(exist_ok=True)
    run("hostname", "edge2")
    host.drift()
    command = [
        HERE / "ansible-pull",
        "-U",
        "file:///srv/declaration",
        "-d",
        "/var/lib/declaration",
        "-i",
        "inventory.yml",
    ]
    done = subprocess.run(
        ["chroot", host.root, *command],
        cwd="/",
        env={
            "PATH": f"{HERE}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(CACHE / "collections"),
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            "ANSIBLE_NOCOLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    numbers = recap(done.stdout)
    assert done.returncode == 0 and host.is_mended, done.stdout
    assert set(numbers) == {"edge2"} and numbers["edge2"]["changed"] > 0 == numbers["edge2"]["failed"], done.stdout


def test_the_execution_environment_gets_what_the_collection_needs(tmp_path: Path) -> None:
    """ansible-builder reads it of the installed collection, and makes a context for an image."""
    builder = HERE / "ansible-builder"
    done = subprocess.run([builder, "introspect", CACHE / "collections"], capture_output=True, text=True, check=False)
    found = yaml.safe_load(done.stdout)
    assert done.returncode == 0 and found["system"], done.stdout + done.stderr
    assert found["python"] == [] and [line.split()[0] for line in found["system"]] == ["gpgv", "gnupg2"]
    example = ROOT / "docs/examples/execution-environment.yml"
    run(builder, "create", "-f", example, "-c", tmp_path, "--output-filename", "Containerfile")
    assert "noiommu.git" in (tmp_path / "_build/requirements.yml").read_text()
    container = (tmp_path / "Containerfile").read_text()
    assert container.index('install "distlib') < container.index("ansible-galaxy collection install")


def sliced(inventory: Path, names: list[str]) -> dict[str, Any]:
    """Return the inventory of a job slice of AWX, which lacks the other hosts."""
    group = json.loads(inventory.read_text(encoding="utf-8"))["noiommu"]
    return {"noiommu": {**group, "hosts": {name: group["hosts"][name] for name in names}}}


@pytest.fixture(scope="module")
def report_dir(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slices side by side, as AWX starts them; then one run with the whole inventory, limited to a third."""
    work = tmp_path_factory.mktemp("slices")
    whole = fleet.inventory(3)
    running = []
    for name in ("host0000", "host0001"):
        path = work / (name + ".json")
        path.write_text(json.dumps(sliced(whole, [name])))
        command = [HERE / "ansible-playbook", "-i", path, REPORT, "-e", f"noiommu_report_dir={work}/report"]
        running.append(
            subprocess.Popen(
                [*map(str, command), "-e", "awx_job_id=1"],
                env=fleet.environment(CONFIG, ANSIBLE_NOCOLOR="1"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for job in running:
        said = job.communicate()[0]
        assert job.returncode == 0, said
    done = play(fleet, HERE, "-i", whole, REPORT, "-e", f"noiommu_report_dir={work}/report", "--limit", "host0002")
    assert done.returncode == 0 and "checked now: 1, of earlier runs: 2" in done.stdout, done.stdout
    return work / "report"


def test_job_slices_make_one_report(report_dir: Path) -> None:
    report = json.loads((report_dir / "report.json").read_text(encoding="utf-8"))
    names = [f"host000{number}" for number in range(3)]
    assert [host["name"] for host in report["hosts"]] == names and report["summary"]["ok"] == 3
    assert sorted(path.stem for path in (report_dir / "metrics").iterdir()) == names
    checked = [host["checked_at"] for host in report["hosts"]]
    assert checked[2] > max(checked[:2])
