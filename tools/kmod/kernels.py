# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""The kernels that the module supports: where each comes from, how to build for it, what boots it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.common import RigError, say

from . import debug
from .archive import Archive, kmod_cache, unpack_more, unpacked
from .root import chroot, compiler_root, forget

REPO = Path(__file__).resolve().parent.parent.parent
SOURCE = REPO / "kmod"
RELEASES = {"6.1": "bookworm", "6.12": "trixie", "7.3": "trixie"}  # 7.3 is in the backports of the latter
# Only built for: other configurations of these, and the same series elsewhere
FLAVOURS = {
    "6.1-cloud": "bookworm",
    "6.1-rt": "bookworm",
    "6.1-arm64": "bookworm",
    "6.12-backports": "bookworm",
    "6.12-cloud": "trixie",
    "6.12-rt": "trixie",
    "6.12-arm64": "trixie",
    "7.3-cloud": "trixie",
    "7.3-rt": "trixie",
    "7.3-arm64": "trixie",
}
ARM64 = "-arm64"
HEADERS = "linux-headers-"
CHECKPATCH = ("scripts/checkpatch.pl", "scripts/spelling.txt", "scripts/const_structs.checkpatch")
SAMPLE = "samples/vfio-mdev/mtty.c"


@dataclass(frozen=True)
class Kernel:
    """One kernel of the archive: its series, as asked for, and its release, as `uname -r` says it."""

    series: str
    release: str
    archive: Archive  # of this machine's architecture
    make: tuple[str, ...] = ()  # what a cross-compiler needs to be told

    @property
    def arm64(self) -> bool:
        return self.release.endswith(ARM64)

    @property
    def image(self) -> Path:
        return kmod_cache() / f"linux-{self.release}"


def find(series: str) -> Kernel:
    """The newest kernel of a series that can be tested, or of a flavour of it that can be built for."""
    known = {**RELEASES, **FLAVOURS, **{name: recipe.release for name, recipe in debug.RECIPES.items()}}
    if series not in known:
        raise RigError(f"there is no kernel {series!r}", "", "use some of: " + ", ".join(known))
    archive = Archive(known[series])
    archive.open()
    if series in debug.RECIPES:
        return Kernel(series, debug.release(archive, series), archive)
    version, _dash, flavour = series.partition("-")
    suffix = {"": "-amd64", "backports": "-amd64", "arm64": ARM64}.get(flavour, f"-{flavour}-amd64")
    names = archive.names("linux-(?:headers|image|binary|modules)-[0-9].*")
    if suffix == ARM64:  # the tools of a build run here, so this machine's headers are needed besides
        others = Archive(archive.release, "arm64")
        others.open()
        names = both_architectures(names, others.names("linux-(?:headers|image|binary|modules)-[0-9].*"))
    release, passed_over = newest(names, version, suffix, boots=series in RELEASES or suffix == ARM64)
    if release is None:
        headers = sorted((name for name in names if name.startswith(HEADERS) and name.endswith(suffix)), key=_version)
        raise RigError(
            f"Debian {archive.release} has no kernel {series} any more",
            "it has: " + " ".join([*headers, *passed_over]),
            "change RELEASES or FLAVOURS in tools/kmod/kernels.py",
        )
    if passed_over:
        say(f"kernel {series}: {release}; passed over: " + "; ".join(passed_over))
    return Kernel(
        series, release, archive, ("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-") if suffix == ARM64 else ()
    )


def of_release(release: str) -> Kernel:
    """The kernel with this release, as a machine says it with `uname -r`; not always the newest of its series."""
    series = ".".join(release.split(".")[:2])
    archive = Archive(RELEASES.get(series, ""))
    if series in RELEASES:
        archive.open()
        if HEADERS + release in archive.names(re.escape(HEADERS + release)):
            return Kernel(series, release, archive)
    raise RigError(
        f"the archive has no headers of kernel {release} any more",
        f"Debian {archive.release or '?'}",
        "remove the image of that machine from the cache ($NOIOMMU_CACHE), so that it is built anew",
    )


def newest(names: Iterable[str], version: str, suffix: str, boots: bool) -> tuple[str | None, list[str]]:
    """The newest release of a series among these packages, and why newer ones are passed over.

    Headers come into the archive before the image of the same release, which has to be signed first. To boot the
    kernel, both have to be there.
    """
    there = set(names)
    pattern = re.compile(rf"{HEADERS}({re.escape(version)}[.][0-9.]+(?:-[0-9]+)?(?:[+]deb[0-9.]+)?{suffix})")
    releases = [match.group(1) for match in map(pattern.fullmatch, there) if match]
    passed_over: list[str] = []
    for release in sorted(releases, key=_version, reverse=True):
        lacking = [] if not boots else [name for name in image_packages(release, there) if name not in there]
        if not lacking:
            return release, passed_over
        passed_over.append(f"{release} has headers, and no {' or '.join(lacking)} yet")
    return None, passed_over


def image_packages(release: str, there: Container[str]) -> list[str]:
    """The packages that hold what boots: one, or since Linux 7.2 the image and its modules apart."""
    apart = [f"linux-binary-{release}", f"linux-modules-{release}"]
    return apart if any(name in there for name in apart) else [f"linux-image-{release}"]


def both_architectures(names: Iterable[str], arm64: Iterable[str]) -> list[str]:
    """The packages for arm64 whose counterparts for this machine are there as well."""
    there = set(names)
    return [name for name in arm64 if name.endswith(ARM64) and name.removesuffix(ARM64) + "-amd64" in there]


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", name)]


# Programs that all of this runs, and the package of each
PROGRAMS = {
    "apt-get": "apt",
    "chroot": "coreutils",
    "dpkg-deb": "dpkg",
    "perl": "perl",
    "tar": "tar",
    "unshare": "util-linux",
    "xz": "xz-utils",
}


def require(programs: dict[str, str]) -> None:
    """Stop, with the remedy, where root or a program is missing."""
    if os.geteuid() != 0:
        raise RigError(
            "building in a changed root directory needs root",
            f"the effective user id is {os.geteuid()}",
            "run it with sudo, or as root",
        )
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        raise RigError(
            "programs are missing: " + " ".join(missing),
            f"PATH is {os.environ.get('PATH')}",
            "apt-get install " + " ".join(sorted({programs[name] for name in missing})),
        )


def source_files(source: Path = SOURCE) -> list[Path]:
    files = [*source.iterdir(), *(source / "include").rglob("*.h")]
    return sorted(path for path in files if path.suffix in (".c", ".h") or path.name in ("Kbuild", "Makefile"))


def build_root(kernel: Kernel) -> Path:
    """A directory tree with the kernel's headers and its own compiler, to chroot into.

    Newer headers come with tools that need a newer C library than the machine has.
    """
    if kernel.series in debug.RECIPES:
        return debug.root(kernel.archive, kernel.series)
    headers = f"linux-headers-{kernel.release}"
    if kernel.series in RELEASES:
        return compiler_root(kernel.archive, kernel.series, f"headers and compiler of {kernel.release}", [headers])
    if not kernel.make:
        return compiler_root(
            kernel.archive, f"flavour-{kernel.series}", f"headers and compiler of {kernel.release}", [headers]
        )

    # The tools of a kernel build run here: all is of this machine's kind but the flavour's own headers and the compiler
    ours = f"linux-headers-{kernel.release.removesuffix(ARM64)}-amd64"
    root = compiler_root(
        kernel.archive,
        f"flavour-{kernel.series}",
        f"cross-compiler for {kernel.release}",
        [ours, "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        kernel.release,
    )
    return unpack_more(Archive(kernel.archive.release, "arm64"), f"headers of {kernel.release}", [headers], root)


@dataclass(frozen=True)
class Build:
    """What came of building the module for one kernel."""

    problems: list[str]
    log: Path
    module: Path
    seconds: float


def build(kernel: Kernel, source: Path = SOURCE, name: str = "") -> Build:
    """Build with all warnings and with sparse; any warning is a problem, wherever it comes from.

    Another source than the project's own needs a name, by which its module is told from others.
    """
    root = build_root(kernel)
    start = time.monotonic()
    work = root / f"build-{os.getpid()}"
    work.mkdir()
    try:
        for path in source_files(source):
            target = work / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        out = chroot(root, ["make", "-C", f"/{work.name}", f"KVER={kernel.release}", "W=1", "C=2", *kernel.make])
        log = kmod_cache() / f"build-{kernel.series}{name and '-' + name}.log"
        log.write_text(out.stdout, encoding="utf-8")
        # That is about the debug information of vmlinux, which header packages do not have
        lines = [line for line in out.stdout.splitlines() if "Skipping BTF generation" not in line]
        problems = [line for line in lines if re.search(r"\b(warning|error)\b|\*\*\*|undefined!", line, re.I)]
        if out.returncode and not problems:
            problems = lines[-5:] or [f"make failed with exit code {out.returncode}"]
        module = kmod_cache() / f"ko-{kernel.series}{name and '-' + name}" / "noiommu.ko"
        if not problems:
            problems = check_module(kernel, root, work)
        if not problems:
            module.parent.mkdir(exist_ok=True)
            shutil.copy2(work / "noiommu.ko", module)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Build(problems, log, module, time.monotonic() - start)


def check_module(kernel: Kernel, root: Path, work: Path) -> list[str]:
    """What modinfo says about the module against what it should say."""
    out = chroot(root, ["modinfo", f"/{work.name}/noiommu.ko"]).stdout
    info: dict[str, list[str]] = {}
    for entry in out.splitlines():
        key, _colon, value = entry.partition(":")
        info.setdefault(key.strip(), []).append(value.strip())
    version = re.search(r'^PACKAGE_VERSION="(.*)"', (SOURCE / "dkms.conf").read_text(encoding="utf-8"), re.M)
    wanted = {"version": version.group(1) if version else "(none in dkms.conf)", "license": "GPL", "name": "noiommu"}
    problems = [
        f"modinfo: {key} is {' '.join(info.get(key, ['missing']))}, not {value}"
        for key, value in wanted.items()
        if info.get(key) != [value]
    ]
    if not info.get("vermagic", [""])[0].startswith(kernel.release + " "):
        problems.append(f"modinfo: vermagic {info.get('vermagic')} is not of {kernel.release}")
    parms = {text.split(":")[0] for text in info.get("parm", [])}
    if parms != {"devices", "add", "remove", "dpdk_pa_hint", "held", "held_max", "write_combining"}:
        problems.append(f"modinfo: parameters are {' '.join(sorted(parms))}")
    return problems


def boot_files(kernel: Kernel) -> tuple[Path, Path]:
    """The kernel image, and the directory of its modules."""
    if kernel.series in debug.RECIPES:
        return debug.boot_files(kernel.archive, kernel.series)
    base = f"-{kernel.release}"
    archive = kernel.archive
    if kernel.arm64:
        archive = Archive(archive.release, "arm64")
        archive.open()
    names = archive.names(f"linux-(image|binary|modules){re.escape(base)}")
    forget(f"linux-{kernel.series.removesuffix(ARM64)}.*-{kernel.release.rpartition('-')[2]}", kernel.image)
    unpacked(archive, f"kernel {kernel.release}", sorted(names), kernel.image)
    modules = kernel.image / "usr/lib/modules" / kernel.release
    for vmlinuz in (kernel.image / "boot" / f"vmlinuz{base}", modules / "vmlinuz"):
        if vmlinuz.is_file():
            return vmlinuz, modules
    raise RigError(
        f"the packages of kernel {kernel.release} hold no vmlinuz",
        f"looked in {kernel.image}",
        f"remove {kernel.image} and run this again",
    )


def source_of_oldest() -> Path:
    """The files that are used of the oldest supported kernel's source package."""
    source = kmod_cache() / "source-6.1"
    if not all((source / name).is_file() for name in (*CHECKPATCH, SAMPLE)):
        archive = Archive(RELEASES["6.1"])
        archive.open()
        source.mkdir(exist_ok=True)
        pipe = (
            'set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -xO ./usr/src/linux-source-6.1.tar.xz'
            ' | tar -xJ -C "$1" --strip-components=1 '
            + " ".join(f"linux-source-6.1/{name}" for name in (*CHECKPATCH, SAMPLE))
        )
        with archive.download("the source of kernel 6.1", ["linux-source-6.1"]) as debs:
            say("unpacking " + ", ".join((*CHECKPATCH, SAMPLE)))
            subprocess.run(["bash", "-c", pipe, debs[0], source], check=True)
    return source


def build_sample(kernel: Kernel) -> Path:
    """The oldest kernel's own sample of a device that VFIO emulates, as a module for it."""
    return build_helper(kernel, source_of_oldest() / SAMPLE)


def build_helper(kernel: Kernel, source: Path) -> Path:
    """A module of one file that a test works with."""
    root = build_root(kernel)
    work = root / f"helper-{os.getpid()}"
    work.mkdir()
    try:
        shutil.copy2(source, work)
        (work / "Kbuild").write_text(f"obj-m := {source.stem}.o\n", encoding="utf-8")
        out = chroot(
            root, ["make", "-C", f"/lib/modules/{kernel.release}/build", f"M=/{work.name}", *kernel.make, "modules"]
        )
        if out.returncode:
            raise RigError(
                f"{source} does not build for {kernel.release}",
                out.stdout[-2000:],
                "see what has changed in the kernel's packages",
            )
        module = kmod_cache() / f"ko-{kernel.series}" / f"{source.stem}.ko"
        module.parent.mkdir(exist_ok=True)
        shutil.copy2(work / module.name, module)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return module


def build_program(kernel: Kernel, source: Path, options: Sequence[str], into: Path) -> None:
    """Compile a test, which includes headers beside it and of the module, for the machine that boots the kernel."""
    command = ["-static", "-pthread", "-O2", "-Wall", "-Wextra", "-Werror", *options]
    if not kernel.arm64:
        out = subprocess.run(
            ["gcc", *command, f"-I{SOURCE}", "-o", into, source],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    else:
        root = build_root(kernel)
        work = root / f"program-{os.getpid()}"
        work.mkdir()
        try:
            for path in (source, *source.parent.glob("*.h")):
                shutil.copy2(path, work)
            shutil.copytree(SOURCE / "include", work / "include")
            out = chroot(
                root,
                [
                    "aarch64-linux-gnu-gcc",
                    *command,
                    f"-I/{work.name}",
                    "-o",
                    f"/{work.name}/program",
                    f"/{work.name}/{source.name}",
                ],
            )
            if not out.returncode:
                shutil.copy2(work / "program", into)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    if out.returncode:
        raise RigError(f"{source.name} does not compile", out.stdout, "install gcc and libc6-dev, or correct the test")


def checkpatch() -> Build:
    """The kernel's own style checker, from the oldest supported kernel's source package."""
    start = time.monotonic()
    scripts = source_of_oldest() / "scripts"
    files = [path for path in (*source_files(), *(SOURCE / "examples").glob("*")) if path.suffix in (".c", ".h")]
    out = subprocess.run(
        [
            "perl",
            scripts / "checkpatch.pl",
            "--strict",
            "--no-tree",
            "--terse",
            "--no-summary",
            "--show-types",
            "--file",
            *files,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log = kmod_cache() / "checkpatch.log"
    log.write_text(out.stdout, encoding="utf-8")
    problems = [line for line in out.stdout.splitlines() if line.strip()]
    if out.returncode and not problems:
        problems = [f"checkpatch failed with exit code {out.returncode}"]
    return Build(problems, log, scripts, time.monotonic() - start)
