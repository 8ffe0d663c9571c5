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
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from . import deps, disk, grub, initramfs, systemd_boot
from .common import IMAGES, UNUSED, RigError, cache_dir, locked, run_logged, say

# What boots an image.
CHAINS = {"grub": grub, "systemd-boot": systemd_boot}
DEFAULT_ARCHIVES = {
    "Debian": "http://deb.debian.org/debian",
    "Debian-Security": "http://deb.debian.org/debian-security",
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def recipe(name: str) -> dict[str, Any]:
    """Read a recipe of tools/images, on top of the one that it extends: lists grow, files add up, the rest replaces.

    `leave_out` names packages that the extended one has and this one does not.
    """
    import yaml  # not at the top: `tools/vm deps` runs before it is installed

    path = IMAGES / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in IMAGES.glob("*.yml")))
        raise RigError(f"there is no image {name!r}", f"{path} does not exist", f"use one of: {known}")
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = own.pop("extends", None)
    whole = recipe(base) if base else {}
    dropped = own.pop("leave_out", [])
    if dropped:
        whole["packages"] = [package for package in whole["packages"] if package not in dropped]
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
    builders = [__file__, disk.__file__, CHAINS[spec["boot"]].__file__]
    if "initramfs" in spec:
        builders.append(initramfs.__file__)
    text = json.dumps([spec, *(Path(path).read_text(encoding="utf-8") for path in builders), *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ensure(name: str) -> Path:
    """Path of the image, built now if there is none for the recipe as it is."""
    spec, key, options = recipe(name), ssh_key(), apt_options()
    lines, public = sources(spec, archives()), key.with_suffix(".pub").read_text(encoding="utf-8")
    final = cache_dir() / f"{name}-{cache_key(spec, public, *lines, *options)}.qcow2"
    if final.exists():
        os.utime(final)  # used today: not to be swept
        return final
    deps.require(spec["architecture"] == "arm64")
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
            path: text.replace("@NAME@", name)
            .replace("@CMDLINE@", spec["cmdline"])
            .replace("@ROOT_UUID@", disk.ROOT_UUID)
            .replace("@ESP_ID@", disk.ESP_ID)
            for path, text in spec["files"].items()
        },
    }
    write_files(overlay, spec, lines, options, public)
    packages(name, spec, lines, options, root, overlay, log)
    write_files(root, spec, lines, options, public)  # again: the build overwrites some with the host's
    for verb in ("mask", "enable"):
        if spec.get(verb):
            run_logged(f"image {name}: systemctl {verb}", ["chroot", str(root), "systemctl", verb, *spec[verb]], log)
    for release in disk.kernels(name, root) if "initramfs" in spec else ():
        initramfs.make(name, root, release, spec["initramfs"], tmp)
    chain = CHAINS[spec["boot"]]
    chain.prepare(name, spec, root, log)
    for command in spec.get("commands", ()):
        run_logged(f"image {name}: {command[0]}", ["chroot", str(root), *command], log)
    return chain.write(name, spec, root, tmp, log)


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
    architecture = spec["architecture"]
    debs = cache_dir() / (f"debs-{spec['suite']}" + ("" if architecture == "amd64" else f"-{architecture}"))
    debs.mkdir(exist_ok=True)
    kept = '"$1"/var/cache/apt/archives'
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--architectures={architecture}",
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
        # The kernel's package asks before it has an initial RAM disk made.
        env={**os.environ, "INITRD": "No"} if "initramfs" in spec else None,
    )
