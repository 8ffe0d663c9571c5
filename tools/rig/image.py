# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Disk images: built from the distribution's packages, without loop devices, cached by the hash of their recipe."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from . import deps
from .common import IMAGES, UNUSED, RigError, cache_dir, locked, run_logged, say

ROOT_UUID = "6e6f696f-6d6d-4755-8000-000000000012"
ROOT_START = 2048  # sectors; GRUB's core image lies in the gap before it
DEFAULT_ARCHIVES = {
    "Debian": "http://deb.debian.org/debian",
    "Debian-Security": "http://deb.debian.org/debian-security",
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ESP_MIB = 16
# Where the firmware looks on a disk that it has no boot entry for, and the signed programs that it finds there
ESP_FILES = {
    "EFI/BOOT/BOOTX64.EFI": "usr/lib/shim/shimx64.efi.signed",
    "EFI/BOOT/mmx64.efi": "usr/lib/shim/mmx64.efi.signed",
    "EFI/BOOT/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}
ESP_GRUB = "EFI/debian/grub.cfg"  # built into the signed GRUB
GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "configfile", "linux", "serial", "terminal")


def recipe(name: str) -> dict[str, Any]:
    """Read a recipe of tools/images, on top of the one that it extends: lists grow, files add up, the rest replaces."""
    import yaml  # not at the top: `tools/vm deps` runs before it is installed

    path = IMAGES / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in IMAGES.glob("*.yml")))
        raise RigError(f"there is no image {name!r}", f"{path} does not exist", f"use one of: {known}")
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = own.pop("extends", None)
    whole = recipe(base) if base else {}
    for key, value in own.items():
        before = whole.get(key)
        if isinstance(before, list):
            whole[key] = [*before, *value]
        elif isinstance(before, dict):
            whole[key] = {**before, **value}
        else:
            whole[key] = value
    return whole


def ssh_key() -> Path:
    """The key pair of this cache, made at first use; images trust it."""
    key = cache_dir() / "id_ed25519"
    with locked(cache_dir() / "key.lock", "making the ssh key"):
        if not key.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "noiommu-rig", "-f", str(key)], check=True
            )
    return key


def archives() -> dict[str, str]:
    """Where this machine gets Debian's packages from, by archive label; Debian's own address if it has none."""
    found = dict(DEFAULT_ARCHIVES)
    out = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Origin: Debian"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout
    for line in out.splitlines():
        label, _space, uri = line.partition(" ")
        if label in found and uri.startswith(("http://", "https://")):
            found[label] = uri.rstrip("/")
    return found


def apt_options() -> list[str]:
    """The machine's proxies and validity settings, for the build and for the guests alike."""
    out = subprocess.run(["apt-config", "dump"], stdout=subprocess.PIPE, text=True, check=True).stdout
    wanted = re.compile(r'Acquire::(https?::Proxy(::\S+)?|Check-Valid-Until|Check-Date) "[^"]+";')
    lines = [line for line in out.splitlines() if wanted.fullmatch(line)]
    for scheme in ("http", "https"):
        proxy = os.environ.get(f"{scheme}_proxy")
        if proxy and not any(line.startswith(f"Acquire::{scheme}::Proxy ") for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return lines


def sources(spec: dict[str, Any], where: dict[str, str]) -> list[str]:
    """One-line apt sources of an image."""
    suites = [spec["suite"], *(f"{spec['suite']}-{pocket}" for pocket in spec.get("pockets", []))]
    return [
        f"deb {where['Debian-Security' if suite.endswith('-security') else 'Debian']} {suite} "
        + " ".join(spec["components"])
        for suite in suites
    ]


def for_guest(text: str) -> str:
    """A proxy or mirror on this machine's loopback is at 10.0.2.2 from inside a guest."""
    return re.sub(r"//(localhost|127\.0\.0\.1|\[::1\])(?=[:/])", "//10.0.2.2", text)


def cache_key(spec: dict[str, Any], *more: str) -> str:
    """Changes with anything that goes into an image: recipe, builder, key, package sources."""
    text = json.dumps([spec, Path(__file__).read_text(encoding="utf-8"), *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ensure(name: str) -> Path:
    """Path of the image, built now if there is none for the recipe as it is."""
    spec, key, options = recipe(name), ssh_key(), apt_options()
    lines, public = sources(spec, archives()), key.with_suffix(".pub").read_text(encoding="utf-8")
    final = cache_dir() / f"{name}-{cache_key(spec, public, *lines, *options)}.qcow2"
    if final.exists():
        os.utime(final)  # used today: not to be swept
        return final
    deps.require()
    if os.geteuid() != 0:
        raise RigError(
            f"building image {name} needs root (file ownership, chroot)",
            f"{final} does not exist yet",
            f"run once: sudo NOIOMMU_CACHE={cache_dir()} tools/vm image {name}",
        )
    with locked(cache_dir() / f"{name}.lock", f"building image {name}"):
        if not final.exists():
            say(f"image {name}: building {final.name}, some minutes the first time")
            sweep(name)
            with tempfile.TemporaryDirectory(prefix=f"{name}-build-", dir=cache_dir()) as tmp:
                build(name, spec, lines, options, public, Path(tmp)).replace(final)
            say(f"image {name}: {final} ({final.stat().st_size >> 20} MiB)")
    return final


def sweep(name: str) -> None:
    """Remove what killed builds left (the lock says that none is running) and images unused for a week."""
    for left in cache_dir().glob(f"{name}-build-*"):
        shutil.rmtree(left, ignore_errors=True)
    for old in cache_dir().glob(f"{name}-*.qcow2"):
        if time.time() - old.stat().st_mtime > UNUSED:
            old.unlink()


def build(name: str, spec: dict[str, Any], lines: list[str], options: list[str], public: str, tmp: Path) -> Path:
    """Make the image inside `tmp` and return its path there."""
    root, log = tmp / "root", cache_dir() / f"{name}-build.log"
    log.unlink(missing_ok=True)
    overlay = tmp / "files"
    spec = {
        **spec,
        "files": {
            path: text.replace("@NAME@", name).replace("@CMDLINE@", spec["cmdline"]).replace("@ROOT_UUID@", ROOT_UUID)
            for path, text in spec["files"].items()
        },
    }
    write_files(overlay, spec, lines, options, public)
    packages(name, spec, lines, options, root, overlay, log)
    write_files(root, spec, lines, options, public)  # again: the build overwrites some with the host's
    for verb in ("mask", "enable"):
        if spec.get(verb):
            run_logged(f"image {name}: systemctl {verb}", ["chroot", str(root), "systemctl", verb, *spec[verb]], log)
    core = bootloader(name, spec, root, log)
    return disk(name, spec, root, core, tmp, log)


def write_files(root: Path, spec: dict[str, Any], lines: list[str], options: list[str], public: str) -> None:
    """The recipe's files, apt's settings for the guest, and who may log in."""
    files = {
        **spec["files"],
        "/root/.ssh/authorized_keys": public,
        "/etc/apt/sources.list": for_guest("\n".join(lines) + "\n"),
        "/etc/apt/apt.conf.d/90rig": for_guest("\n".join(['APT::Install-Recommends "false";', *options]) + "\n"),
    }
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text, encoding="utf-8")
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)  # the build's own, not fit for a guest
    (root / "root").chmod(0o700)
    (root / "root/.ssh").chmod(0o700)


def packages(
    name: str, spec: dict[str, Any], lines: list[str], options: list[str], root: Path, overlay: Path, log: Path
) -> None:
    """Unpack and configure the packages; downloads are kept in the cache for the next build."""
    debs = cache_dir() / f"debs-{spec['suite']}"
    debs.mkdir(exist_ok=True)
    kept = '"$1"/var/cache/apt/archives'
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--architectures=amd64",
        "--format=directory",
        f"--keyring={KEYRING}",
        "--include=" + ",".join(spec["packages"]),
        *[f"--aptopt={option}" for option in options],
        *[f"--dpkgopt=path-exclude={path}" for path in spec["exclude_paths"]],
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=force-confold",
        "--skip=download/empty,cleanup/apt/cache",
        f"--setup-hook=mkdir -p {kept}; cp -lt {kept} {shlex.quote(str(debs))}/*.deb 2>/dev/null || true",
        # The initramfs is made while packages are configured: its settings have to be there first.
        f'--essential-hook=cp -r {shlex.quote(str(overlay))}/. "$1/"',
        f"--customize-hook=cp -nlt {shlex.quote(str(debs))} {kept}/*.deb; rm -f {kept}/*.deb",
        spec["suite"],
        str(root),
        *lines,
    ]
    run_logged(
        f"image {name}: downloading and installing packages",
        command,
        log,
        f"see that apt's package sources can be reached (apt-get update); the whole log: {log}",
    )


def bootloader(name: str, spec: dict[str, Any], root: Path, log: Path) -> bytes:
    """GRUB's settings in the tree; returns what goes in front of the first partition (boot and core image)."""
    kernels = sorted(p.name.removeprefix("vmlinuz-") for p in (root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise RigError(
            f"image {name} has no kernel", f"no {root}/boot/vmlinuz-*", "add a linux-image package to the recipe"
        )
    boot = root / "boot/grub"
    shutil.copytree(root / "usr/lib/grub/i386-pc", boot / "i386-pc", ignore=shutil.ignore_patterns("*.img", "*.module"))
    # update-grub replaces this one inside the guest, when a test changes the command line
    (boot / "grub.cfg").write_text(
        "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"
        f"linux /boot/vmlinuz-{kernels[-1]} root=UUID={ROOT_UUID} ro {spec['cmdline']}\n"
        f"initrd /boot/initrd.img-{kernels[-1]}\nboot\n",
        encoding="utf-8",
    )
    run_logged(
        f"image {name}: grub-mkimage",
        [
            "chroot",
            str(root),
            "grub-mkimage",
            "-O",
            "i386-pc",
            "-p",
            "(hd0,msdos1)/boot/grub",
            "-o",
            "/core.img",
            *GRUB_MODULES,
        ],
        log,
    )
    core = (root / "core.img").read_bytes()
    (root / "core.img").unlink()
    mbr = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440]
    if len(core) > (ROOT_START - 1) * 512:
        raise RigError("GRUB's core image does not fit", f"{len(core)} bytes", "use fewer modules in GRUB_MODULES")
    return mbr.ljust(512, b"\0") + core


def partition_entry(kind: int, start: int, sectors: int) -> bytes:
    """One bootable entry of a DOS partition table (LBA only)."""
    return struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, sectors)


def system_partition(name: str, root: Path, tmp: Path, log: Path) -> Path:
    """What UEFI firmware boots: the signed shim and the signed GRUB, which goes on with the settings of the tree."""
    image, tree = tmp / "esp.img", tmp / "esp"
    absent = [str(root / source) for source in ESP_FILES.values() if not (root / source).is_file()]
    if absent:
        raise RigError(
            f"image {name} has nothing to boot UEFI firmware with",
            "missing: " + " ".join(absent),
            "add shim-signed and grub-efi-amd64-signed to the recipe",
        )
    for target, source in ESP_FILES.items():
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, tree / target)
    (tree / ESP_GRUB).parent.mkdir()
    (tree / ESP_GRUB).write_text(
        f"search --fs-uuid --set=root {ROOT_UUID}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n",
        encoding="utf-8",
    )
    run_logged(
        f"image {name}: making the EFI system partition",
        [
            "sh",
            "-ec",
            'mkfs.vfat -C "$0" "$2" >/dev/null; mcopy -s -i "$0" "$1"/EFI ::',
            str(image),
            str(tree),
            str(ESP_MIB << 10),
        ],
        log,
    )
    return image


def disk(name: str, spec: dict[str, Any], root: Path, front: bytes, tmp: Path, log: Path) -> Path:
    """Partition table, boot loader and both file systems in one file, converted to qcow2."""
    raw, image = tmp / "disk.raw", tmp / "disk.qcow2"
    size, start, sectors = int(spec["disk_mib"]) << 20, ROOT_START * 512, ESP_MIB * 2048
    esp_start = size // 512 - sectors
    with raw.open("wb") as out:
        out.write(front)
        out.seek(446)
        out.write(
            partition_entry(0x83, ROOT_START, esp_start - ROOT_START)
            + partition_entry(0xEF, esp_start, sectors)
            + bytes(32)
            + b"\x55\xaa"
        )
        out.truncate(size)
        out.seek(esp_start * 512)
        out.write(system_partition(name, root, tmp, log).read_bytes())
    run_logged(
        f"image {name}: making the file system",
        [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "^metadata_csum_seed,^orphan_file",
            "-m",
            "0",
            "-U",
            ROOT_UUID,
            "-L",
            "root",
            "-d",
            str(root),
            "-E",
            f"offset={start},lazy_itable_init=0,lazy_journal_init=0",
            str(raw),
            f"{(esp_start * 512 - start) >> 10}k",
        ],
        log,
        f"if full: raise disk_mib in the recipe; log: {log}",
    )
    run_logged(
        f"image {name}: converting to qcow2",
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)],
        log,
    )
    return image
