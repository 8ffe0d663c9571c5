# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright (c) 2026, baremetal.noiommu contributors
"""Packages of any Debian release, fetched by an apt of our own: the machine's own package state stays untouched."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rig.common import RigError, cache_dir, locked, run_logged, say
from rig.image import KEYRING, apt_options, archives

# Seconds until package lists are fetched again. The archive keeps no file that its lists have dropped.
LISTS_AGE = 3600


def kmod_cache() -> Path:
    """Where all of this is kept between runs."""
    path = cache_dir() / "kmod"
    path.mkdir(exist_ok=True)
    return path


class Archive:
    """One Debian release with its security, updates and backports pockets."""

    def __init__(self, release: str, architecture: str = "amd64") -> None:
        self.release, self.architecture = release, architecture
        self.home = kmod_cache() / (f"apt-{release}" if architecture == "amd64" else f"apt-{release}-{architecture}")
        self.log = self.home / "apt.log"

    @property
    def config(self) -> Path:
        return self.home / "apt.conf"

    def open(self) -> None:
        """Write the configuration and fetch the package lists if they are old."""
        if not Path(KEYRING).is_file():
            raise RigError(
                "the keys of Debian's archive are missing",
                f"{KEYRING} does not exist",
                "run as root: apt-get install debian-archive-keyring",
            )
        for sub in ("lists/partial", "cache/archives/partial"):
            (self.home / sub).mkdir(parents=True, exist_ok=True)
        (self.home / "status").touch()
        where = archives()
        pockets = [
            (where["Debian"], self.release),
            (where["Debian"], f"{self.release}-updates"),
            (where["Debian"], f"{self.release}-backports"),
            (where["Debian-Security"], f"{self.release}-security"),
        ]
        (self.home / "sources.list").write_text(
            "".join(
                f"deb [signed-by={KEYRING} arch={self.architecture}] {uri} {suite} main\n" for uri, suite in pockets
            ),
            encoding="utf-8",
        )
        settings = {
            "Dir::Etc::sourcelist": self.home / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": self.home,
            "Dir::State::lists": self.home / "lists",
            "Dir::State::status": self.home / "status",
            "Dir::Cache": self.home / "cache",
            "Dir::Log": self.home,
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        self.config.write_text(
            "".join(f'{key} "{value}";\n' for key, value in settings.items()) + "\n".join(apt_options()) + "\n",
            encoding="utf-8",
        )
        stamp = self.home / "updated"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_AGE:
            return
        try:
            self.run(f"package lists of Debian {self.release}", ["apt-get", "-q", "update", "--error-on=any"])
        except RigError as exc:
            if not stamp.exists():
                raise
            say(f"using the package lists from {time.ctime(stamp.stat().st_mtime)}: {exc.cause}")
            return
        stamp.touch()

    def env(self) -> dict[str, str]:
        return {**os.environ, "APT_CONFIG": str(self.config), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}

    def run(self, what: str, command: Sequence[str]) -> None:
        run_logged(what, command, self.log, "see that apt's package sources can be reached: apt-get update", self.env())

    def query(self, command: Sequence[str]) -> str:
        proc = subprocess.run(
            command, env=self.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False
        )
        if proc.returncode != 0:
            raise RigError(f"{shlex.join(command)} failed", proc.stderr or proc.stdout, f"read {self.log}")
        return proc.stdout

    def names(self, pattern: str) -> list[str]:
        """Names of packages that match all of the pattern."""
        wanted = re.compile(pattern)
        return [name for name in self.query(["apt-cache", "pkgnames"]).split() if wanted.fullmatch(name)]

    def versions(self, package: str) -> list[str]:
        """All versions of a package, the newest first."""
        return re.findall(r"^Version: (\S+)$", self.query(["apt-cache", "show", package]), re.M)

    def version(self, package: str) -> str:
        """The newest version of a package."""
        found = re.search(r"^Version: (\S+)$", self.query(["apt-cache", "show", "--no-all-versions", package]), re.M)
        if not found:
            raise RigError(f"Debian {self.release} has no package {package}", "", f"read {self.log}")
        return found.group(1)

    def plan(self, packages: Sequence[str]) -> list[str]:
        """The packages with all they depend on, as name=version."""
        out = self.query(["apt-get", "-y", "-s", "install", *packages])
        return [f"{name}={version}" for name, version in re.findall(r"^Inst (\S+) \((\S+) ", out, re.M)]

    @contextlib.contextmanager
    def download(self, what: str, packages: Sequence[str]) -> Iterator[list[Path]]:
        """The files of these packages and of no others, while the context lasts: they are big, and used once."""
        with tempfile.TemporaryDirectory(dir=self.home, prefix="debs-") as tmp:
            self.run(f"downloading {what}", ["sh", "-c", 'cd "$0" && exec apt-get -q download "$@"', tmp, *packages])
            yield sorted(Path(tmp).glob("*.deb"))


def unpacked(archive: Archive, what: str, packages: Sequence[str], into: Path) -> Path:
    """A directory with the contents of these packages: complete or not there. No maintainer script runs."""
    with locked(into.parent / f"{into.name}.lock", f"unpacking {what}"):
        if into.is_dir():
            return into
        half = into.with_name(into.name + ".new")
        shutil.rmtree(half, ignore_errors=True)
        for name in ("bin", "sbin", "lib", "lib64"):  # before anything is unpacked through them
            (half / "usr" / name).mkdir(parents=True)
            (half / name).symlink_to(f"usr/{name}")
        _unpack(archive, what, packages, half)
        half.rename(into)
        return into


def unpack_more(archive: Archive, what: str, packages: Sequence[str], into: Path) -> Path:
    """Add packages to such a directory, and nothing they depend on."""
    done = into / "more-is-unpacked"
    with locked(into.parent / f"{into.name}.lock", f"unpacking {what}"):
        if not done.exists():
            archive.open()
            _unpack(archive, what, packages, into)
            done.touch()
    return into


def _unpack(archive: Archive, what: str, packages: Sequence[str], into: Path) -> None:
    with archive.download(what, packages) as debs:
        say(f"unpacking {what}")
        for deb in debs:
            # dpkg-deb -x would put a directory in the place of /lib where a package has files in it
            pipe = 'set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink -C "$1"'
            proc = subprocess.run(["bash", "-c", pipe, deb, into], stderr=subprocess.PIPE, text=True, check=False)
            if proc.returncode != 0:
                raise RigError(f"cannot unpack {deb.name}", proc.stderr, f"see that there is space in {into.parent}")
