# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Boot one of the distribution's kernels in a small machine whose only process is a program of ours."""
from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rig import qemu
from rig.common import RigError, run_logged

from . import kernels

FLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result", "-pthread")
NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|\r")


def compiled(source: Path, into: Path, flags: Iterable[str] = ()) -> Path:
    """A static program."""
    proc = subprocess.run(["gcc", *FLAGS, *flags, "-o", into, source], stderr=subprocess.PIPE, text=True, check=False)
    if proc.returncode:
        raise RigError(f"{source.name} does not compile", proc.stderr, "install gcc and libc6-dev, or mend it")
    return into


def with_dependencies(modules: Path, wanted: Iterable[str]) -> list[Path]:
    """The module files to load for these modules, in order."""
    files = {re.sub(r"\.ko(\.xz)?$", "", path.name).replace("-", "_"): path
             for path in modules.rglob("*.ko*") if path.is_file()}
    order: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            raise RigError(f"the kernel has no module {name}", f"looked in {modules}", "mend what the caller wants")
        if path in order:
            return
        depends = subprocess.run(["modinfo", "-F", "depends", path], stdout=subprocess.PIPE, text=True, check=True).stdout
        for other in filter(None, depends.strip().split(",")):
            visit(other)
        order.append(path)

    for name in wanted:
        visit(name)
    return order


def initramfs(init: Path, modules: Iterable[Path], into: Path) -> Path:
    """A program as /init, and modules for it to load."""
    tree = into / "tree"
    (tree / "modules").mkdir(parents=True)
    (tree / "dev").mkdir()
    shutil.copy2(init, tree / "init")
    for path in modules:
        name = re.sub(r"\.ko(\.xz)?$", "", path.name)
        with (tree / "modules" / f"{name}.ko").open("wb") as out:
            subprocess.run(["xz", "-dc" if path.suffix == ".xz" else "-fdc", path], stdout=out, check=True)
    image = into / "initramfs"
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", "-F", image], cwd=tree, input="\n".join(files),
                   text=True, check=True)
    return image


def console_of(kernel: kernels.Kernel, module: Path, init: Path, log: Path, what: str, *, wanted: Sequence[str] = (),
               memory: int = 1024, cmdline: str = "", timeout: int = 600) -> list[str]:
    """Boot, wait for the program to power the machine off, and return what it printed."""
    vmlinuz, modules = kernels.boot_files(kernel)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="noiommu-boot-") as tmp:
        image = initramfs(init, [*with_dependencies(modules, wanted), module], Path(tmp))
        append = f"console=ttyS0 panic=-1 panic_on_warn=1 oops=panic mitigations=off quiet loglevel=1 {cmdline}"
        run_logged(what, ["timeout", "--kill-after=5", str(timeout), "qemu-system-x86_64", "-machine", "q35", *qemu.TCG,
                          "-smp", "2", "-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none",
                          "-no-reboot", "-serial", f"file:{log}", "-kernel", str(vmlinuz), "-initrd", str(image),
                          "-append", append.strip(), "-device", "e1000e,addr=02.0,romfile=",
                          "-device", "e1000e,addr=03.0,romfile="], Path(tmp) / "qemu.log",
                   f"read {log}: the machine was stopped after {timeout} s, or QEMU did not start")
    return NOISE.sub("", log.read_text(errors="replace")).splitlines()
