# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the testinfra stages of every scenario share: hosts, runs, comparisons."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import testinfra
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
RUN = Path(os.environ["NOIOMMU_RUN"])
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])


@functools.cache
def hosts() -> dict[str, dict]:
    """Return the scenario's hosts of the group noiommu with their variables from machines.yml and the rig."""
    groups = yaml.safe_load((RUN / "inventory.yml").read_text(encoding="utf-8"))["all"]["children"]
    return {name: groups["vms"]["hosts"][name] for name in groups["noiommu"]["hosts"]}


def nics(name: str) -> list[str]:
    """Return the addresses of a host's data NICs."""
    return [nic["address"] for nic in hosts()[name]["rig_nics"]]


def connect(name: str):
    """Return a testinfra host that talks plain ssh, ten times faster than through Ansible."""
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(RUN / "ssh_config"))


def on(name: str, command: str, *, stdin: str | None = None, timeout: float = 600) -> str:
    """Run a shell command on a host, fail loudly, return what it printed."""
    done = subprocess.run(
        ["ssh", "-F", str(RUN / "ssh_config"), name, command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{name}: {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_python(name: str, script: str, *args: str, timeout: float = 600) -> dict:
    """Run one of the tests' own scripts on a host; return the JSON that it printed."""
    source = (REPOSITORY / "tests" / script).read_text(encoding="utf-8")
    return json.loads(on(name, " ".join(["python3", "-", *args]), stdin=source, timeout=timeout))


def rig(*arguments: str) -> None:
    """Have the rig do something to a machine of this run."""
    command, *rest = arguments
    subprocess.run([str(REPOSITORY / "tools" / "vm"), command, "--run", str(RUN), *rest], check=True, timeout=1200)


def steps_of(report: dict) -> dict[str, str]:
    """Return what became of each step of tests/clients/vfio_client.py: "" for success, else the errno's name."""
    return {step["step"]: step["error"] for step in report["steps"]}


def host_state(name: str) -> dict:
    """Return the host's file tree and device state, see tests/hoststate.py."""
    return run_python(name, "hoststate.py")


def differences(before: dict, after: dict, path: str = "") -> list[str]:
    """Return every leaf in which two host states differ, readably."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted({*before, *after})
            for line in differences(before.get(key), after.get(key), f"{path}/{key}" if path else key)
        ]
    if isinstance(before, list) and isinstance(after, list) and before != after:
        lost, new = (
            [entry for entry in left if entry not in other] for left, other in ((before, after), (after, before))
        )
        if lost or new:
            return [f"{path}: lost {lost}, new {new}"]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def playbook(
    name: str,
    host: str,
    *,
    check: bool = False,
    environ: dict[str, str] | None = None,
    inventory: Path = SCENARIO / "inventory",
    **variables,
) -> subprocess.CompletedProcess:
    """Run one of the collection's playbooks as an operator does, limited to some hosts; all it says is in stdout."""
    command = [
        "ansible-playbook",
        f"baremetal.noiommu.{name}",
        "--limit",
        host,
        f"--inventory={RUN / 'inventory.yml'}",
        f"--inventory={inventory}",
        "--extra-vars",
        json.dumps(variables),
        *(["--check"] if check else []),
    ]
    # molecule asks for colours, and for failures on stderr.
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true", **(environ or {})}
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False, env=environment
    )


def module(host: str, called: str, /, **options) -> dict:
    """Run one of the collection's modules on a host by itself; return its result, that of a failure too."""
    command = [
        "ansible",
        host,
        "-m",
        f"baremetal.noiommu.{called}",
        "-a",
        json.dumps(options),
        f"--inventory={RUN / 'inventory.yml'}",
        f"--inventory={SCENARIO / 'inventory'}",
    ]
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False, env=environment)
    assert "=> {" in done.stdout + done.stderr, done.stdout + done.stderr
    return json.loads((done.stdout if "=> {" in done.stdout else done.stderr).partition("=> ")[2])


def refused(host: str, *expected: str, **variables) -> str:
    """Deploy, expect a refusal that says all of the expected and no traceback; return the output."""
    done = playbook("deploy", host, **variables)
    missing = [part for part in expected if part not in done.stdout]
    assert done.returncode != 0, done.stdout
    assert not missing and "Traceback" not in done.stdout, f"not said: {missing}\n{done.stdout}"
    return done.stdout


def declaration(path: Path, edit: Callable[[dict], dict]) -> Path:
    """Write the scenario's inventory with the group's variables edited; return it."""
    declared = yaml.safe_load((SCENARIO / "inventory/hosts.yml").read_text(encoding="utf-8"))
    declared["noiommu"]["vars"] = edit(declared["noiommu"]["vars"])
    path.write_text(yaml.safe_dump(declared), encoding="utf-8")
    return path


def save_baseline(name: str) -> None:
    """Keep a host's state from before anything was done to it."""
    (RUN / "baseline").mkdir(parents=True, exist_ok=True)
    (RUN / "baseline" / f"{name}.json").write_text(json.dumps(host_state(name)), encoding="utf-8")
    (RUN / "baseline" / f"{name}.boot").write_text(boot_id(name), encoding="utf-8")


def boot_id(name: str) -> str:
    """Return the kernel's random name for the running boot."""
    return on(name, "cat /proc/sys/kernel/random/boot_id").strip()


def changes_since_baseline(name: str) -> list[str]:
    """Return every way in which a host differs from its baseline."""
    baseline = json.loads((RUN / "baseline" / f"{name}.json").read_text(encoding="utf-8"))
    return differences(baseline, host_state(name))


@contextlib.contextmanager
def broken(host: str, damage: str, repair: str):
    """Damage a host for the time of one test, and repair it whatever happens."""
    on(host, damage)
    try:
        yield
    finally:
        on(host, repair)


def rebooted_since_baseline(name: str) -> bool:
    """Whether this is another boot than the one that the baseline was taken in."""
    return boot_id(name) != (RUN / "baseline" / f"{name}.boot").read_text(encoding="utf-8")


def remote_executions(name: str, since: str = "") -> int:
    """Count the Ansible modules that ran on a host in this boot: each logs its start there."""
    limit = f"--since=@{since}" if since else ""
    return int(on(name, f"journalctl -q --no-pager -b {limit} | grep -c 'ansible-.* Invoked with' || true"))


def recorded(run: str) -> list[dict]:
    """Return the task results of a run such as ``check-converge-1``, see tests/callbacks/record.py."""
    lines = (RUN / "record" / f"{run}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def recorded_changes(run: str) -> list[tuple[str, str]]:
    """Return the (host, task) pairs that changed in a recorded run."""
    return sorted((entry["host"], entry["task"]) for entry in recorded(run) if entry["changed"])
