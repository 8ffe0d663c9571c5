# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Make the files of one converged host, for all simulated hosts of bench/scale to share.

    python scale_hosts.py DIRECTORY KMOD <DECLARATION

The tree is shaped as a kernel shapes it, and as large as a server's. The collection's own modules bring it to the declared
state, with the unit tests' kernel to react to them.
"""

import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.change import BindingChange
from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.plugins.module_utils._dkms.source import digest, pack, read_conf, read_source
from ansible_collections.baremetal.noiommu.plugins.module_utils._policy.guard_context import GuardContext
from ansible_collections.baremetal.noiommu.plugins.modules import dataplane_access, dkms_module, hugepages
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_dkms import FakeDkms
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

KERNEL = os.uname().release
# What a server has besides the data plane's devices.
FUNCTIONS, PROCESSES, MODULES, OPTIONS, MOUNTS = 120, 300, 4000, 9000, 30
# What comes from the machine itself: everything else below these is the simulated host's own.
OWN = (
    "boot",
    "dev",
    "etc",
    "home",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr/lib/modules",
    "usr/local",
    "usr/src",
    "var",
)
# Quicker than the real ones, which want a running kernel.
STANDING_IN = {"dkms": "echo 'noiommu, %s, %s: installed'" % (KERNEL, os.uname().machine), "modprobe": "exit 0"}


class Idle(Runner):
    """Takes whatever is to be run."""

    def run(self, *argv: str) -> RunResult:
        return RunResult(0, "", "")


def installation(tree: Tree) -> None:
    """Debian, with one kernel and what a build needs."""
    tree.file("/proc/sys/kernel/osrelease", KERNEL)
    tree.file("/etc/os-release", 'ID=debian\nVERSION_ID="12"')
    tree.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh")
    tree.file("/etc/shadow", "root:*:19000:0:99999:7:::\nalice:*:19000:0:99999:7:::")
    tree.file("/etc/group", "root:x:0:\nalice:x:1000:\ndataplane:x:990:alice")
    tree.file("/etc/gshadow", "root:*::\nalice:*::\ndataplane:!::alice")
    tree.file("/etc/systemd/system/forwarder.service", "[Service]\nUser=alice\nExecStart=/usr/local/bin/forwarder")
    for program in ("bin/gcc-12", "bin/make", "local/bin/forwarder"):
        tree.file("/usr/" + program)
    for program, script in STANDING_IN.items():
        tree.file("/usr/sbin/" + program, "#!/bin/sh\n" + script)
        tree.at("/usr/sbin/" + program).chmod(0o755)
    tree.link("/etc/alternatives/which", "/usr/bin/which.debianutils")
    for directory in ("/tmp", "/root", "/home/alice", "/run/systemd/system", "/usr/src", "/var/lib/dkms", "/var/tmp"):
        tree.dir(directory)
    os.chown(tree.at("/home/alice"), 1000, 1000)
    options = "".join("CONFIG_OPTION_%04d=m\n" % number for number in range(OPTIONS))
    tree.file(
        "/boot/config-" + KERNEL, options + 'CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0) 12.2.0"\nCONFIG_VFIO=m'
    )
    tree.dir("/lib/modules/%s/kernel" % KERNEL)
    tree.file("/usr/src/linux-headers-%s/Makefile" % KERNEL)
    tree.link("/lib/modules/%s/build" % KERNEL, "/usr/src/linux-headers-" + KERNEL)


def hardware(tree: Tree, taken: list[str]) -> None:
    """Bridges and the like, two ports of the host's own, its disk, and the ports that the data plane gets."""
    for number in range(FUNCTIONS):
        address = "0000:%02x:%02x.%d" % (number // 64, number // 8 % 8, number % 8)
        tree.pci(address, "8086:2f%02x" % number, "060400" if number % 3 else "088000", numa_node=number % 2)
    for number, address in enumerate(["0000:a0:00.0", "0000:a0:00.1", *taken]):
        tree.pci(address, "8086:1572", "020000", "i40e", numa_node=number % 2)
        tree.net("ens%df%d" % (number // 2, number % 2), address, "b4:96:91:00:00:%02x" % number, up=number < 2)
    disk = tree.pci("0000:c0:00.0", "144d:a808", "010802", "nvme")
    tree.block("nvme0n1", disk + "/nvme/nvme0", "259:0")
    for address in tree.root.listdir("/sys/bus/pci/devices"):
        # lspci wants these of each.
        tree.file(tree.real(address) + "/resource", "0x0 0x0 0x0\n" * 7)
        tree.file(tree.real(address) + "/irq", "0")
    for size, count in (("2048", 1024), ("1048576", 8)):
        for node in range(2):
            for name, number in (("nr", count // 2), ("free", count // 2), ("surplus", 0)):
                pool = "/sys/devices/system/node/node%d/hugepages/hugepages-%skB/" % (node, size)
                tree.file("%s%s_hugepages" % (pool, name), str(number))
        for name, number in (("nr", count), ("free", count), ("surplus", 0), ("resv", 0)):
            tree.file("/sys/kernel/mm/hugepages/hugepages-%skB/%s_hugepages" % (size, name), str(number))
    for node in range(2):
        tree.file(
            "/sys/devices/system/node/node%d/meminfo" % node,
            "Node %d MemTotal: 131072000 kB\nNode %d MemFree: 65536000 kB" % (node, node),
        )


def processes(tree: Tree) -> None:
    """What there is below /proc of the kernel's own, and of each process."""
    tree.file("/proc/meminfo", "MemTotal: 262144000 kB\nMemFree: 131072000 kB\nSwapFree: 0 kB")
    tree.file("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-%s root=UUID=1 ro quiet" % KERNEL)
    tree.file("/proc/stat", "cpu 1 1 1 1\nbtime 1700000000")
    tree.file("/proc/swaps", "Filename Type Size Used Priority")
    tree.file("/proc/sys/kernel/tainted", "12352")
    tree.file("/proc/sys/vm/nr_hugepages", "1024")
    tree.file("/proc/sys/vm/compact_memory")
    tree.file("/proc/uptime", "1000.00 1000.00")
    others = [("0:%d" % (40 + number), "/run/%d" % number, "tmpfs") for number in range(MOUNTS)]
    tree.mounts(("259:0", "/", "/dev/nvme0n1"), *others)
    for number in range(1, PROCESSES + 1):
        here = "/proc/%d" % number
        tree.file(here + "/comm", "process%d" % number)
        tree.file(here + "/cgroup", "0::/system.slice/service%d.service" % number)
        tree.file(here + "/status", "Name:\tprocess%d\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff" % number)
        for descriptor in range(8):
            tree.dir(here + "/fd")
            tree.at("%s/fd/%d" % (here, descriptor)).symlink_to("/dev/null")
        tree.dir(here + "/ns")
        tree.at(here + "/ns/net").symlink_to("net:[4026531840]")
    tree.link("/proc/self", "/proc/1")


def nodes(tree: Tree) -> None:
    """The devices that any program expects."""
    for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
        os.mknod(tree.at("/dev/" + name), stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.chmod(tree.at("/dev/" + name), 0o666)
    tree.at("/dev/fd").symlink_to("/proc/self/fd")


def call(module: ModuleType, arguments: dict, tree: Tree, runner: Runner) -> None:
    """Run a module on the tree."""
    given = {name: spec.get("default") for name, spec in module.ARGUMENTS.items()}
    # Not run, by which Ansible starts it on the machine itself.
    act = module.present if module is dkms_module else getattr(module, module.__name__.rpartition(".")[2])
    act(FakeModule({**given, **arguments}), tree.root, runner)


def converge(machine: Machine, declared: dict, kmod: str) -> None:
    """What the roles do, in their order."""
    tree = machine.tree
    source = read_source(kmod)
    conf = read_conf(source, kmod)
    with tempfile.NamedTemporaryFile() as archive:
        archive.write(pack(source))
        archive.flush()
        call(
            dkms_module,
            {"name": conf.name, "version": conf.version, "digest": digest(source), "archive": archive.name},
            tree,
            FakeDkms(tree),
        )
    call(hugepages, {"pools": [{"node": None, **pool} for pool in declared["noiommu_hugepages"]]}, tree, Idle())
    request = Request(declared["noiommu_devices"], accept_unsafe=True)
    BindingChange(machine.kernel, GuardContext(machine.root), request).apply()
    access = declared["noiommu_access"]
    services = [{"capabilities": None, **service} for service in access["services"]]
    call(dataplane_access, {**access, "services": services, "backend": "dkms", "accept_unsafe": True}, tree, Idle())


def main() -> None:
    sys.executable = "/usr/bin/python3"  # the hosts' own, which goes into their units
    base, kmod, declared = Path(sys.argv[1]), sys.argv[2], json.load(sys.stdin)
    tree = Tree(base)
    for name in ("bin", "sbin", "lib"):
        tree.dir("/usr/" + name)
        tree.at("/" + name).symlink_to("usr/" + name)
    installation(tree)
    hardware(tree, [device["address"] for device in declared["noiommu_devices"]])
    processes(tree)
    machine = Machine(tree)
    index = "/lib/modules/%s/modules.dep" % KERNEL
    there = tree.root.read_text(index)
    others = ["kernel/drivers/x/driver%04d.ko: kernel/lib/y%04d.ko\n" % (number, number) for number in range(MODULES)]
    tree.file(index, "".join(others) + there)
    nodes(tree)
    converge(machine, declared, kmod)
    for name in OWN:
        tree.dir("/" + name)
        os.setxattr(tree.at(name), "trusted.overlay.opaque", b"y")


if __name__ == "__main__":
    main()
