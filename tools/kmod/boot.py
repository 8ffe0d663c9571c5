# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Boots a kernel with a test as its only process, and reads the test's TAP from the serial console."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import qemu
from rig.common import RigError, locked, run_logged, say, tail
from rig.program import emulator

from . import debug, kernels
from .archive import kmod_cache

WANTED = ("vfio", "vfio_iommu_type1", "vfio-pci", "e1000e", "pci-pf-stub")
LATER = ("e1000e",)  # the tests load these themselves
PROGRAMS = {
    "cpio": "cpio",
    "gcc": "gcc",
    "ldd": "libc-bin",
    "modinfo": "kmod",
    "qemu-system-x86_64": "qemu-system-x86",
    "timeout": "coreutils",
}
XZ = b"\xfd7zXZ\0"
ARM64_PROGRAMS = {"qemu-system-aarch64": "qemu-system-arm"}
SLOWER = 8  # how much longer everything takes in a debugging kernel
BOOTS = 3  # at the most, where the emulator failed and the module was not tested
SILENCE = 300  # seconds without a word from the test: an emulated second processor does not always start on a busy host
# Whatever a guest does, QEMU must not crash; 7.2 has, rarely, when a PF took its VFs away
WATCH = """
"$@" & pid=$!
seconds=0
while kill -0 $pid 2>/dev/null && [ ! -s "$LOG" ]; do
    [ $((seconds += 1)) -le "$SILENCE" ] || { echo "not a word in $SILENCE s" >"$BLAME"; kill $pid; wait $pid; exit 1; }
    sleep 1
done
wait $pid; code=$?
case $code in 134 | 135 | 139) echo "QEMU itself crashed, by signal $((code - 128))" >"$BLAME" ;; esac
exit $code
"""


@dataclass(frozen=True)
class Machine:
    """What to boot: a test program with what is on the kernel's command line for it."""

    kernel: kernels.Kernel
    module: Path
    program: Path
    name: str  # of the log file
    environment: Mapping[str, str]
    timeout: float
    iommu: bool = False
    on_warning: str = "panic"  # or "go on", if the test looks for warnings itself
    memory: int = 512  # MiB; twice that for a debugging kernel
    wanted: Sequence[str] = WANTED  # modules of the kernel
    qemu: bool = False  # take QEMU along, for a machine in the machine
    samples: Sequence[Path] = ()  # modules that the test loads, besides those of the kernel
    gic: str = "3"  # version of an arm64 machine's interrupt controller: 3 has an ITS for MSIs, 2 has GICv2m


@dataclass(frozen=True)
class Result:
    """What the test printed. A machine that died counts as one more failed test."""

    passed: int
    failed: int
    seconds: float
    tests: list[str]
    notes: list[str]
    log: Path


def with_dependencies(modules: Path, wanted: Sequence[str]) -> list[Path]:
    """The module files to load for these modules, in order."""
    files = {
        re.sub(r"\.ko(\.xz)?$", "", path.name).replace("-", "_"): path
        for path in modules.rglob("*.ko*")
        if path.is_file()
    }
    order: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            raise RigError(
                f"the kernel has no module {name}",
                f"looked in {modules}",
                "correct what the test asks for, see tools/kmod/boot.py",
            )
        if path in order:
            return
        depends = subprocess.run(
            ["modinfo", "-F", "depends", path], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        for other in filter(None, depends.strip().split(",")):
            visit(other)
        order.append(path)

    for name in wanted:
        visit(name)
    return order


def take_qemu(tree: Path) -> None:
    """Copy this machine's QEMU with its libraries, and the firmware without which it starts no PC."""
    program = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64"
    listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    libraries = re.findall(r"(?:=> |^\t)(/\S+) \(0x", listed, re.M)
    where = subprocess.run([program, "-L", "help"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for name in ("bios-256k.bin", "kvmvapic.bin"):
        found = next((Path(path) / name for path in where if (Path(path) / name).is_file()), None)
        if found is None:
            raise RigError(
                f"QEMU has no {name}", "looked in " + " ".join(where), "apt-get install seabios qemu-system-data"
            )
        libraries.append(str(found))
    # Some distributions keep it in a file of its own, which needs no more libraries
    libraries += [
        str(path)
        for pattern in ("lib*/qemu", "lib/*/qemu")
        for path in Path("/usr").glob(f"{pattern}/accel-tcg-x86_64.so")
    ]
    for source, target in [(program, "/usr/bin/qemu-system-x86_64"), *((path, path) for path in libraries)]:
        (tree / target[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, tree / target[1:])


def initramfs(machine: Machine, modules: Path, into: Path) -> Path:
    """The test as init, and the modules it loads."""
    tree = into / "tree"
    (tree / "modules").mkdir(parents=True)
    names = []
    for path in with_dependencies(modules, machine.wanted):
        name = re.sub(r"\.ko(\.xz)?$", "", path.name)
        with (tree / "modules" / f"{name}.ko").open("wb") as out:
            subprocess.run(["xz", "-dc" if path.suffix == ".xz" else "-fdc", path], stdout=out, check=True)
        if name not in LATER:
            names.append(name)
    for path in (machine.module, *machine.samples):
        shutil.copy2(path, tree / "modules" / path.name)
    kernels.build_program(machine.kernel, machine.program, [f'-DMODULES="{" ".join(names)}"'], tree / "init")
    if machine.qemu:
        take_qemu(tree)
    image = into / "initramfs"
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", "-F", image],
        cwd=tree,
        input="\n".join(files),
        text=True,
        check=True,
    )
    return image


def unpacked_kernel(vmlinuz: Path) -> Path:
    """The kernel for QEMU to start, without xz's compression: undoing that takes 8 s of each emulated boot.

    Kernels that are compressed otherwise unpack themselves in a second.
    """
    image = vmlinuz.read_bytes()
    start, length = struct.unpack_from("<II", image, 0x248)  # payload_offset, payload_length
    payload = image[((image[0x1F1] or 4) + 1) * 512 + start :][:length]
    if not payload.startswith(XZ):
        return vmlinuz
    vmlinux = vmlinuz.with_name(vmlinuz.name.replace("vmlinuz", "vmlinux"))
    with locked(vmlinuz.with_name("vmlinux.lock"), f"unpacking {vmlinuz.name}"):
        if not vmlinux.exists():
            half = vmlinux.with_name(f"{vmlinux.name}.new")
            half.write_bytes(lzma.LZMADecompressor().decompress(payload))
            half.rename(vmlinux)
    return vmlinux


DEVICES = (
    "-device",
    "pcie-root-port,addr=05.0,chassis=1,id=rp",
    "-device",
    "nvme-subsys,id=nvm",
    "-device",
    "nvme,addr=06.0,subsys=nvm,serial=noiommu,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2",
    "-object",
    "memory-backend-ram,id=shm,size=1M",
    "-device",
    "ivshmem-plain,addr=07.0,memdev=shm",
)


def nics(iommu: bool) -> list[str]:
    return [
        "-device",
        "e1000e,addr=02.0,romfile=",
        "-device",
        "e1000e,addr=03.0,romfile=",
        "-device",
        f"virtio-net-pci,addr=04.0,romfile=,disable-legacy=on{',iommu_platform=on' if iommu else ''}",
    ]


def bare(memory: int, kernel: Path, image: Path, log: Path) -> list[str]:
    """What every small machine has, whatever its processor: a kernel, its initramfs, and a console in a file."""
    options = ["-smp", "2", "-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    return [*options, "-serial", f"file:{log}", "-kernel", str(kernel), "-initrd", str(image)]


def arm64_command(machine: Machine, kernel: Path, image: Path, log: Path) -> list[str]:
    """The same devices at the same addresses, on a board without firmware."""
    append = "console=ttyAMA0 panic=-1 oops=panic mitigations=off quiet loglevel=1 log_buf_len=4M"
    if machine.on_warning == "panic":
        append += " panic_on_warn=1"
    append += "".join(f" {key}={value}" for key, value in machine.environment.items())
    return [
        "qemu-system-aarch64",
        "-machine",
        f"virt,gic-version={machine.gic}",
        "-cpu",
        "cortex-a72",
        "-accel",
        "tcg,thread=multi,tb-size=512",
        *bare(machine.memory, kernel, image, log),
        "-append",
        append,
        *nics(iommu=False),
        *DEVICES,
    ]


def command(machine: Machine, kernel: Path, image: Path, log: Path) -> list[str]:
    if machine.kernel.arm64:
        return arm64_command(machine, kernel, image, log)
    # On a busy host no tick may come while the kernel looks whether the timer works
    append = "console=ttyS0 panic=-1 oops=panic mitigations=off no_timer_check quiet loglevel=1 log_buf_len=4M"
    if machine.on_warning == "panic":
        append += " panic_on_warn=1"
    memory = machine.memory * (2 if machine.kernel.series in debug.RECIPES else 1)
    line = [
        *emulator(),
        "-machine",
        "q35",
        *qemu.TCG,
        *bare(memory, kernel, image, log),
    ]
    if machine.iommu:
        line += ["-device", "intel-iommu,intremap=on"]
        append += " intel_iommu=on"
    append += "".join(f" {key}={value}" for key, value in machine.environment.items())
    return [*line, "-append", append, *nics(machine.iommu), *DEVICES]


def died_of_emulation(log: Path) -> bool:
    """Whether the kernel crashed before the test said a word and before our module, which taints it, was loaded.

    On a busy host an emulated processor may run into the breakpoint with which the other one patches the kernel.
    """
    text = log.read_text(errors="replace")
    return "Oops: int3" in text and " Not tainted " in text and not re.search(r"^(not ok|ok|#) ", text, re.MULTILINE)


def run(machine: Machine, what: str) -> Result:
    """Boot once and wait for the end."""
    vmlinuz, modules = kernels.boot_files(machine.kernel)
    kernel = vmlinuz if machine.kernel.arm64 else unpacked_kernel(vmlinuz)
    log = kmod_cache() / f"{machine.name}.log"
    timeout = machine.timeout * (SLOWER if machine.kernel.series in debug.RECIPES else 1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="noiommu-kmod-") as tmp:
        image = initramfs(machine, modules, Path(tmp))
        line = ["timeout", "--foreground", "--kill-after=5", f"{timeout:.0f}", *command(machine, kernel, image, log)]
        for boots in range(BOOTS):
            log.unlink(missing_ok=True)
            blame = Path(tmp) / f"blame-{boots}"  # why the emulator is to blame, if it is
            env = {**os.environ, "LOG": str(log), "BLAME": str(blame), "SILENCE": str(SILENCE)}
            try:
                run_logged(
                    what,
                    ["sh", "-c", WATCH, "sh", *line],
                    Path(tmp) / "qemu.log",
                    f"read {log}: the machine was stopped after {timeout:.0f} s, or QEMU did not start",
                    env,
                    watch=log,
                )
                if boots == BOOTS - 1 or not died_of_emulation(log):
                    break
                say(f"{what}: the kernel died before the module was there, the machine is started again")
            except RigError:
                if not blame.exists() or boots == BOOTS - 1:
                    raise
                say(f"{what}: {blame.read_text().strip()}, the machine is started again")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|\r", "", log.read_text(errors="replace")).splitlines()
    tests = [line for line in lines if re.match(r"(not )?ok \d+ ", line)]
    notes = [line for line in lines if line.startswith("# ")]
    failed = sum(line.startswith("not ") for line in tests)
    passed = len(tests) - failed
    plan = [line for line in lines if re.fullmatch(r"1\.\.\d+", line)]
    if not plan or int(plan[0][3:]) != len(tests):
        tests.append("not ok - the machine died before the end")
        notes += [f"# {log} ends with:", *("#   " + line for line in tail(log, 60).splitlines())]
        failed += 1
    return Result(passed, failed, time.monotonic() - start, tests, notes, log)
