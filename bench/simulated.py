# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Simulated hosts on this machine, reached by real ssh: for bench/scale, and for the tests of engines and versions.

They live in namespaces of their own: no process, mount or address of it is seen outside, or stays. What they need of
Debian's packages is unpacked below .cache and not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from rig.common import RigError, say

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache/scale"
PACKAGES = ("openssh-server", "openssh-sftp-server", "libwrap0", "dpdk", "pciutils", "libpci3")
DECLARED = {
    "noiommu_accept_unsafe": True,
    "noiommu_devices": [{"address": f"0000:b0:00.{number}"} for number in range(4)],
    "noiommu_hugepages": [{"size": "2M", "count": 1024}, {"size": "1G", "count": 8}],
    "noiommu_access": {
        "group": "dataplane",
        "users": ["alice"],
        "services": [{"name": "forwarder", "profile": "dpdk"}],
    },
}
# How many pages of 2 MiB a host has, below its root.
PAGES = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
ENTER = """#!/bin/sh
# What sshd runs for each command: the address that was connected to says which host is meant.
set -- $SSH_CONNECTION
echo 1 >>{work}/executed/$3
[ ! -e {work}/pause ] || sleep 1
exec /usr/sbin/chroot {work}/root/$3 /bin/sh -c "cd; ${{SSH_ORIGINAL_COMMAND:-exit 1}}"
"""
SSHD = """ListenAddress 0.0.0.0
HostKey {work}/host_key
AuthorizedKeysFile {work}/key.pub
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
LoginGraceTime 0
MaxStartups 2000
PidFile none
Subsystem sftp /usr/lib/openssh/sftp-server
ForceCommand {work}/enter
"""
SSH = """Host *
User root
IdentityFile {work}/key
IdentitiesOnly yes
GlobalKnownHostsFile none
UserKnownHostsFile {work}/known_hosts
LogLevel ERROR
"""


def run(*argv: object, **options: object) -> subprocess.CompletedProcess:
    """Run a command that has to succeed."""
    return subprocess.run([str(word) for word in argv], check=True, **options)


def unpack() -> Path:
    """Have the programs of the packages, without the services that installing them would start."""
    programs = CACHE / "programs"
    if not programs.exists():
        say("downloading " + ", ".join(PACKAGES))
        fresh = CACHE / "unpacked"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            run("apt-get", "update", "-qq")
            run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *PACKAGES, cwd=folder)
            for package in Path(folder).glob("*.deb"):
                run("dpkg-deb", "-x", package, fresh)
        fresh.rename(programs)
    return programs


def addresses(count: int) -> list[str]:
    """All of 127.0.0.0/8 is the loopback's."""
    return [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]


class Fleet:
    """Hosts that share the files of one converged host, each with its own layer on top."""

    def __init__(self, work: Path, python: Path, count: int) -> None:
        programs = unpack()
        self.work, self.python, self.count = work, python, count
        say(f"making {count} hosts")
        for name in ("root", "own", "scratch", "executed", "control", "ansible"):
            (work / name).mkdir()
        self._converge(programs)
        for address in addresses(count):
            root, own, scratch = (work / name / address for name in ("root", "own", "scratch"))
            for directory in (root, own, scratch):
                directory.mkdir()
            run(
                "mount",
                "-t",
                "overlay",
                "overlay",
                root,
                "-o",
                f"lowerdir={work}/base:/,upperdir={own},workdir={scratch}",
            )
        self._listen(programs)

    def _converge(self, programs: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(CACHE / "collections"), "PYTHONDONTWRITEBYTECODE": "1"}
        run(
            self.python / "python3",
            ROOT / "bench/scale_hosts.py",
            self.work / "base",
            ROOT / "kmod",
            input=json.dumps(DECLARED),
            text=True,
            env=environment,
        )
        for program in (
            "usr/bin/dpdk-devbind.py",
            "usr/bin/lspci",
            "usr/lib/openssh/sftp-server",
            *(str(path.relative_to(programs)) for path in programs.glob("usr/lib/*/libpci.so*")),
        ):
            target = self.work / "base" / program
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(programs / program, target)

    def _listen(self, programs: Path) -> None:
        work = self.work
        for name in ("key", "host_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / name)
        files = {
            "enter": ENTER,
            "sshd_config": SSHD,
            "ssh_config": SSH,
            "known_hosts": "* " + (work / "host_key.pub").read_text(),
            "passwd": "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n",
            "shadow": "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n",
        }
        for name, text in files.items():
            (work / name).write_text(text.format(work=work), encoding="utf-8")
        (work / "enter").chmod(0o755)
        for name in ("passwd", "shadow"):
            run("mount", "--bind", work / name, "/etc/" + name)
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        Path("/run/sshd").mkdir()
        libraries = ":".join(str(path.parent) for path in programs.rglob("libwrap.so.0"))
        with (work / "sshd.log").open("wb") as log:
            self.sshd = subprocess.Popen(
                [programs / "usr/sbin/sshd", "-D", "-e", "-f", work / "sshd_config"],
                env={**os.environ, "LD_LIBRARY_PATH": libraries},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def inventory(self, count: int, **variables: object) -> Path:
        """Write one with so many hosts."""
        path = self.work / f"{count}.json"
        hosts = {f"host{number:04d}": {"ansible_host": address} for number, address in enumerate(addresses(count))}
        declared = {
            "ansible_user": "root",
            "ansible_ssh_common_args": f"-F {self.work}/ssh_config",
            **DECLARED,
            **variables,
        }
        path.write_text(json.dumps({"noiommu": {"hosts": hosts, "vars": declared}}), encoding="utf-8")
        return path

    def environment(self, config: Path, **settings: str) -> dict[str, str]:
        """Return what Ansible is run with."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_CONFIG": str(config),
            "ANSIBLE_COLLECTIONS_PATH": str(CACHE / "collections"),
            "ANSIBLE_HOME": str(self.work / "ansible"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.work / "control"),
            # A busy machine makes a connection late, but not less than one.
            "ANSIBLE_TIMEOUT": "120",
            "PYTHONDONTWRITEBYTECODE": "1",
            **settings,
        }


def prepare() -> None:
    """Make what may stay: what was unpacked, and the collection as if it were installed."""
    if os.geteuid() != 0:
        raise RigError("only root can make namespaces with mounts and addresses", "", "run it as root")
    unpack()
    link = CACHE / "collections/ansible_collections/baremetal/noiommu"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(ROOT)


def in_namespaces(*command: object) -> int:
    """Run a command that makes hosts: whatever happens, they end with this process."""
    namespaces = ["--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run(["unshare", *namespaces, "--", *map(str, command)], check=False).returncode


def settle(work: Path) -> None:
    """Prepare the namespaces, from inside."""
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", work)
