# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""A run: the machines of one list, in one directory, from boot to teardown."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from . import accel, deps, image, program, qemu, spec
from .common import REPOSITORY, RigError, Ticker, cache_dir, interruptible, locked, say, tail

BOOT_TIMEOUT = 600.0
OFF_TIMEOUT = 300.0
POLL = 3.0  # seconds between two looks; a guest that is flooded with connections boots slower
SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"  # the owner of machine owner keys
SSH_OPTIONS = {  # generous: under emulation on a busy machine a login can take a minute
    "IdentitiesOnly": "yes",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "GlobalKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "ConnectTimeout": "120",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "10",
}


class Run:
    """The directory of a run and what is recorded in it."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory.resolve()
        self.state_file = self.dir / "state.json"
        self.machines: dict[str, dict[str, Any]] = {}
        try:
            self.machines = json.loads(self.state_file.read_text(encoding="utf-8"))["machines"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError) as exc:
            raise RigError(f"{self.state_file} is no record of a run", repr(exc), "use another directory") from exc

    def save(self) -> None:
        tmp = self.state_file.with_suffix(".tmp")
        tmp.write_text(json.dumps({"machines": self.machines}, indent=2), encoding="utf-8")
        tmp.replace(self.state_file)

    def pid(self, name: str) -> int | None:
        return qemu.find(self.known(name)["uuid"])

    def known(self, name: str) -> dict[str, Any]:
        if name not in self.machines:
            raise RigError(
                f"there is no machine {name!r} in this run",
                f"{self.state_file}: {', '.join(self.machines) or 'no machines'}",
                "see tools/vm status",
            )
        return self.machines[name]

    def down(self) -> int:
        """Stop every machine of the run and drop the disks; how many were running. Logs stay."""
        count = 0
        for name, entry in self.machines.items():
            count += qemu.stop(entry["uuid"])
            for leftover in (
                *(self.dir / name).glob("disk*.qcow2"),
                self.dir / name / "vars.fd",
                self.dir / name / "qmp.sock",
            ):
                leftover.unlink(missing_ok=True)
        self.machines = {}
        self.state_file.unlink(missing_ok=True)
        return count


def free_ports(count: int, kind: socket.SocketKind) -> list[int]:
    """Loopback ports nobody uses now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, kind)) for _end in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def wiring(machines: list[spec.Machine]) -> tuple[dict[str, dict[int, tuple[int, int]]], dict[str, dict[int, int]]]:
    """UDP ports of the links between machines and hub numbers of those within one, by machine and NIC number."""
    wires: dict[str, dict[int, tuple[int, int]]] = {machine.name: {} for machine in machines}
    hubs: dict[str, dict[int, int]] = {machine.name: {} for machine in machines}
    ends = spec.links(machines)
    ports = iter(free_ports(2 * len(ends), socket.SOCK_DGRAM))
    for number, ((name_a, nic_a), (name_b, nic_b)) in enumerate(ends.values()):
        if name_a == name_b:
            hubs[name_a][nic_a] = hubs[name_a][nic_b] = number
        else:
            port_a, port_b = next(ports), next(ports)
            wires[name_a][nic_a], wires[name_b][nic_b] = (port_a, port_b), (port_b, port_a)
    return wires, hubs


def inventory(machines: list[spec.Machine], ports: dict[str, int], key: Path) -> dict[str, Any]:
    """An Ansible inventory of the machines, with `rig_nics` telling each one's data NICs."""
    args = " ".join(f"-o {name}={value}" for name, value in SSH_OPTIONS.items())
    hosts = {
        m.name: {
            "ansible_host": "127.0.0.1",
            "ansible_port": ports[m.name],
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": args,
            "ansible_timeout": 120,
            "ansible_python_interpreter": "/usr/bin/python3",
            "rig_iommu": m.iommu,
            "rig_nics": [
                {"address": n.address, "mac": n.mac, "model": n.model, "link": n.link, "slot": n.slot} for n in m.nics
            ],
            **m.vars,
        }
        for m in machines
    }
    groups: dict[str, Any] = {"vms": {"hosts": hosts}}
    for machine in machines:
        for group in machine.groups:
            groups.setdefault(group, {"hosts": {}})["hosts"].setdefault(machine.name, {})
    return {"all": {"children": groups}}


def ssh_config(machines: list[spec.Machine], ports: dict[str, int], key: Path) -> str:
    """A configuration for `ssh -F`."""
    blocks = [
        f'Host {m.name}\n  HostName 127.0.0.1\n  Port {ports[m.name]}\n  User root\n  IdentityFile "{key}"\n'
        for m in machines
    ]
    return "".join(blocks) + "Host *\n" + "".join(f"  {k} {v}\n" for k, v in SSH_OPTIONS.items())


def up(directory: Path, machines: list[spec.Machine]) -> None:
    """Boot the machines and return when ssh answers on all; on any failure nothing is left running."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise RigError(f"cannot make the run directory {directory}", str(exc), "use another directory") from exc
    with interruptible(), locked(directory / "lock", f"starting machines in {directory}"):
        _up(directory, machines)


def _up(directory: Path, machines: list[spec.Machine]) -> None:
    import yaml  # not at the top: `tools/vm deps` runs before it is installed

    run = Run(directory)
    alive = [name for name in run.machines if run.pid(name)]
    if alive:
        raise RigError(
            "this run has running machines",
            f"{run.state_file}: {', '.join(alive)}",
            f"tools/vm down --run {directory}, or use another directory",
        )
    run.down()  # records and disks of a run that ended by itself
    for m in machines:
        fits(m, image.recipe(m.image))
    if any(m.architecture == "arm64" for m in machines):
        deps.require(arm64=True)
    images = {name: image.ensure(name) for name in dict.fromkeys(m.image for m in machines)}
    accelerators = {m.name: accel.choose(images[m.image], m) for m in machines}
    key = cache_dir() / "id_ed25519"
    ports = dict(zip([m.name for m in machines], free_ports(len(machines), socket.SOCK_STREAM)))
    wires, hubs = wiring(machines)
    (run.dir / "ssh_config").write_text(ssh_config(machines, ports, key), encoding="utf-8")
    (run.dir / "inventory.yml").write_text(yaml.safe_dump(inventory(machines, ports, key)), encoding="utf-8")
    boots: list[Boot] = []
    try:
        for m in machines:
            ident, how = str(uuid.uuid4()), accelerators[m.name]
            run.machines[m.name] = {"uuid": ident, "port": ports[m.name], "accel": how}
            run.save()  # before it starts: whatever happens to us, `down` finds it
            line = qemu.command(m, ident, how, ports[m.name], wires[m.name], hubs[m.name], program.choose(m, how))
            prepare(run.dir / m.name, m, line, images[m.image])
            # A host name of its own; also the proof that a login works.
            boots.append(
                Boot(
                    run,
                    m.name,
                    f"echo {m.name} > /etc/hostname; hostname {m.name}; echo 127.0.1.1 {m.name} >> /etc/hosts",
                )
            )
        wait(boots, "kvm" if set(accelerators.values()) == {"kvm"} else "tcg")
    except BaseException as exc:
        if not isinstance(exc, RigError):
            say(f"interrupted ({type(exc).__name__} {exc}): stopping the machines")
        for boot in boots:
            boot.give_up()
        time.sleep(0.5)  # a process of this instant has no command line in /proc yet to be known by
        run.down()
        raise


def fits(machine: spec.Machine, recipe: dict[str, Any]) -> None:
    """Refuse a machine that cannot boot its image."""
    for what, has, needs in (
        ("architecture", machine.architecture, recipe["architecture"]),
        ("firmware", machine.firmware, "uefi" if recipe["boot"] == "systemd-boot" else machine.firmware),
    ):
        if has != needs:
            raise RigError(
                f"machine {machine.name} cannot boot the image {machine.image}",
                f"its {what} is {has}",
                f"write {what}: {needs}",
            )


def prepare(directory: Path, machine: spec.Machine, line: list[str], base: Path) -> None:
    """Make the machine's directory: its command line, its disks, its firmware's variables."""
    if directory.exists() and not (directory / "command").exists():
        raise RigError(
            f"{directory} is there and is not ours",
            "it holds no file 'command'",
            "use another run directory, or remove it",
        )
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "command").write_text(shlex.join(line) + "\n", encoding="utf-8")
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, "-F", "qcow2", "-b", str(base), str(directory / "disk.qcow2")], check=True)
    for index, disk in enumerate(machine.disks):
        subprocess.run([*create, str(directory / f"disk-{index}.qcow2"), f"{disk.size}M"], check=True)
    firmware = qemu.firmware(machine)
    if firmware:
        shutil.copy(firmware[1], directory / "vars.fd")


class Boot:
    """One machine on its way up, with a command to log in with."""

    def __init__(self, run: Run, name: str, greet: str = "true") -> None:
        self.name, self.dir, self.port = name, run.dir / name, run.machines[name]["port"]
        line = shlex.split((self.dir / "command").read_text(encoding="utf-8"))
        with (self.dir / "qemu.log").open("ab") as log:
            self.qemu = subprocess.Popen(
                line, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.probe: socket.socket | None = None
        self.login: subprocess.Popen[bytes] | None = None
        self.login_command = ["ssh", "-F", str(run.dir / "ssh_config"), name, greet]

    def ready(self) -> bool:
        """Look once: is QEMU alive, does sshd greet, did the login succeed? Never more than one connection."""
        if self.qemu.poll() is not None:
            raise RigError(
                f"{self.name}: QEMU ended with exit code {self.qemu.returncode}",
                "\n".join(filter(None, (tail(self.dir / log) for log in ("serial.log", "qemu.log")))),
                f"its command line is in {self.dir}/command, its logs are beside it",
            )
        if self.login:
            code = self.login.poll()
            if code:
                say(f"{self.name}: ssh answered but a login failed with exit code {code}, trying again")
                self.login = None
            return code == 0
        try:
            if self.probe is None:  # QEMU accepts at once, the guest's sshd greets when it is up
                self.probe = socket.create_connection(("127.0.0.1", self.port), timeout=1)
            if select.select([self.probe], [], [], 0)[0]:
                greeting = self.probe.recv(64)
                self.close()
                if greeting.startswith(b"SSH-"):
                    self.login = subprocess.Popen(self.login_command, stdin=subprocess.DEVNULL)
        except OSError:  # refused or reset: not up yet
            self.close()
        return False

    def close(self) -> None:
        if self.probe:
            self.probe.close()
        self.probe = None

    def give_up(self) -> None:
        self.close()
        if self.login and self.login.poll() is None:
            self.login.kill()
            self.login.wait()


def wait(boots: list[Boot], how: str) -> None:
    """Until a login works on every machine."""
    names = ", ".join(boot.name for boot in boots)
    ticker, pending = Ticker(f"booting {names} with {how}, waiting for ssh"), list(boots)
    while pending:
        for boot in list(pending):
            if boot.ready():
                pending.remove(boot)
                say(f"{boot.name}: ssh answers after {ticker.elapsed:.0f} s")
        if pending and ticker.elapsed > BOOT_TIMEOUT:
            boot = pending[0]
            raise RigError(
                f"{boot.name}: no ssh after {BOOT_TIMEOUT:.0f} s",
                f"{boot.dir}/serial.log ends with:\n{tail(boot.dir / 'serial.log')}",
                "if the machine is only slow, run it with less beside it; else read that log",
            )
        if pending:
            first = pending[0]
            ticker.tick(f"{len(pending)} left; {first.name} at: {tail(first.dir / 'serial.log', 1)}")
            time.sleep(POLL)


def status(directory: Path) -> int:
    """Print one line for each machine; 0 if all run."""
    run = Run(directory)
    if not run.machines:
        print(f"no machines recorded in {run.dir}")
        return 1
    pids = {name: run.pid(name) for name in run.machines}
    for name, entry in run.machines.items():
        print(
            f"{name}: {f'running, pid {pids[name]}' if pids[name] else 'not running'}, "
            f"ssh port {entry['port']}, {entry['accel']}, log {run.dir}/{name}/serial.log"
        )
    return 0 if all(pids.values()) else 1


def ssh(directory: Path, name: str, command: list[str]) -> None:
    """Become an ssh client of the machine."""
    run = Run(directory)
    run.known(name)
    os.execvp("ssh", ["ssh", "-F", str(run.dir / "ssh_config"), name, *command])


def reset(directory: Path, name: str) -> None:
    """A power cut: nothing is written back, the machine starts again at once."""
    run = Run(directory)
    run.known(name)
    qemu.monitor(run.dir / name, "system_reset")


def snapshot(directory: Path, name: str, verb: str, tag: str) -> None:
    """Save the running machine, memory and disks, or go back to what was saved."""
    run = Run(directory)
    run.known(name)
    said = qemu.monitor(run.dir / name, "human-monitor-command", **{"command-line": f"{verb}vm {tag}"})
    if said.strip():
        raise RigError(
            f"{name}: QEMU cannot {verb} the snapshot {tag}", said.strip(), f"see {run.dir / name / 'qemu.log'}"
        )


def link(directory: Path, name: str, state: str) -> None:
    """Plug the management NIC's cable in, or pull it out."""
    run = Run(directory)
    run.known(name)
    qemu.monitor(run.dir / name, "set_link", name="management", up=state == "up")


def off(directory: Path, name: str, *, cut: bool = False) -> None:
    """Have the machine shut itself down, or cut its power; its disks are kept."""
    run = Run(directory)
    if run.pid(name) is None:
        say(f"{name} is off already")
        return
    if cut:
        qemu.stop(run.machines[name]["uuid"])
        return
    # The login may end with the network, before poweroff has answered: what counts is that QEMU ends.
    subprocess.run(
        ["ssh", "-F", str(run.dir / "ssh_config"), name, "systemctl poweroff"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    ticker = Ticker(f"waiting for {name} to shut down")
    while run.pid(name) is not None:
        if ticker.elapsed > OFF_TIMEOUT:
            log = run.dir / name / "serial.log"
            raise RigError(
                f"{name}: still running {OFF_TIMEOUT:.0f} s after poweroff",
                f"{log} ends with:\n{tail(log)}",
                "cut its power: tools/vm off --cut",
            )
        ticker.tick(tail(run.dir / name / "serial.log", 1))
        time.sleep(1)
    ticker.done()


def on(directory: Path, name: str) -> None:
    """Start a machine that is off, with the disks and firmware variables as it left them; wait for ssh."""
    run = Run(directory)
    if run.pid(name) is not None:
        raise RigError(f"{name} is running already", f"pid {run.pid(name)}", "see tools/vm status")
    with interruptible():
        boot = Boot(run, name)
        try:
            wait([boot], run.machines[name]["accel"])
        except BaseException:
            boot.give_up()
            time.sleep(0.5)  # as in _up
            qemu.stop(run.machines[name]["uuid"])
            raise


def enrol_mok(directory: Path, name: str, certificate: Path) -> None:
    """What an operator does at the console after `mokutil --import`: have shim trust a certificate from now on."""
    run = Run(directory)
    if run.pid(name) is not None:
        raise RigError(
            f"{name} is running", "its firmware has the variables in use", f"tools/vm off --run {directory} {name}"
        )
    store = run.dir / name / "vars.fd"
    if not store.exists():
        raise RigError(
            f"{name} has no firmware variables",
            f"{store} does not exist",
            "write firmware: secureboot in the machine list",
        )
    tool = shutil.which("virt-fw-vars") or REPOSITORY / ".venv/bin/virt-fw-vars"
    try:
        done = subprocess.run(
            [tool, "--inplace", store, "--add-mok", SHIM, certificate],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError as exc:
        raise RigError(
            "the tool that edits firmware variables is missing",
            f"{tool} does not exist",
            "make venv, which installs virt-firmware",
        ) from exc
    if done.returncode:
        raise RigError(
            f"{certificate} cannot be enrolled",
            "\n".join(done.stdout.splitlines()[-5:]),
            "give a certificate, PEM or DER: DKMS keeps its own in /var/lib/dkms/mok.pub",
        )
    say(f"{name}: {certificate} is enrolled from its next start on")
