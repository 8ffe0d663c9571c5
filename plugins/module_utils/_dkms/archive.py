# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of a built module, in the form of DKMS's own binary archives, and the directory that holds them.

One archive serves one kernel release. `dkms ldtarball` takes it as well.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import re
import tarfile
import tempfile
import zlib
from typing import Dict, NamedTuple

from .._base.errors import HostError
from .._host import kernels

_ABOUT = "./dkms_binaries_only/"
_TREE = "./dkms_main_tree/"
_ARCH = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_LARGEST = 64 << 20  # bytes once unpacked; a module with debug information takes some MiB


class Archive(NamedTuple):
    """What an archive holds."""

    name: str
    version: str
    digest: str  # of the source it was built from
    kernel: str
    arch: str
    modules: Dict[str, bytes]  # file name -> content
    conf: bytes
    certificate: bytes | None  # of the key that the build host signs with; None where a module is unsigned


class StoredArchive(NamedTuple):
    """An archive in a directory."""

    path: str
    sha256: str


def pack(archive: Archive) -> bytes:
    """Return it as tar.gz; the same content gives the same bytes."""
    members = {
        _ABOUT + "PACKAGE_NAME": archive.name.encode() + b"\n",
        _ABOUT + "PACKAGE_VERSION": archive.version.encode() + b"\n",
        _ABOUT + "dkms.conf": archive.conf,
        _ABOUT + "SOURCE_DIGEST": archive.digest.encode() + b"\n",
    }
    if archive.certificate is not None:
        members[_ABOUT + "signing.der"] = archive.certificate
    for name, content in archive.modules.items():
        members["%s%s/%s/module/%s" % (_TREE, archive.kernel, archive.arch, name)] = content
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(members):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(members[path]), 0o644
            tar.addfile(member, io.BytesIO(members[path]))
    return gzip.compress(plain.getvalue(), mtime=0)


def unpack(packed: bytes, where: str) -> Archive:
    """Return what is in an archive; nothing is written anywhere."""
    try:
        archive = _parse(_members(packed))
        kernels.require_release(archive.kernel, where)
    except (OSError, EOFError, ValueError, LookupError, zlib.error, tarfile.TarError) as exc:
        raise HostError(
            "archive",
            "A prebuilt archive is not one that this collection made for one kernel.",
            evidence=["%s: %s: %s" % (where, type(exc).__name__, exc)],
            remedy="Remove it where the controller keeps it, and run again: the build host then makes it anew.",
        ) from exc
    return archive


def _members(packed: bytes) -> dict[str, bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
        plain = stream.read(_LARGEST + 1)
    if len(plain) > _LARGEST:
        raise ValueError("it holds more than %d MiB" % (_LARGEST >> 20))
    members = {}
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                members["./" + member.name[2 * member.name.startswith("./") :]] = content.read()
    return members


def _parse(members: dict[str, bytes]) -> Archive:
    places = [re.match(re.escape(_TREE) + r"([^/]+)/([^/]+)/module/([^/]+)\Z", path) for path in members]
    found = [place for place in places if place]
    ((kernel, arch),) = {(place.group(1), place.group(2)) for place in found}
    name, version, digest = (
        members[_ABOUT + key].decode().strip() for key in ("PACKAGE_NAME", "PACKAGE_VERSION", "SOURCE_DIGEST")
    )
    if not _ARCH.match(arch):
        raise ValueError("%.100r is not an architecture" % arch)
    modules = {place.group(3): members[place.group(0)] for place in found}
    for file in modules:
        # It becomes a file name among the kernel's modules, and must not be another module's.
        if not re.match(re.escape(name) + r"\.ko(\.(xz|gz|zst))?\Z", file):
            raise ValueError("%.100r is not a file of the module %s" % (file, name))
    certificate = members.get(_ABOUT + "signing.der")
    return Archive(name, version, digest, kernel, arch, modules, members[_ABOUT + "dkms.conf"], certificate)


def remote_name(kernel: str) -> str:
    """Return what a build host calls a kernel's archive in the directory that it is to be fetched from."""
    return kernel + ".dkms.tar.gz"


def file_name(name: str, version: str, digest: str, kernel: str, arch: str) -> str:
    """Return what the archive is called, so that source and kernel are known without opening it."""
    return "%s-%s-kernel%s-%s-%s.dkms.tar.gz" % (name, version, kernel, arch, digest[:12])


def stored(directory: str, name: str, version: str, digest: str) -> dict[str, StoredArchive]:
    """Return a real directory's archives of one source, by kernel."""
    found = {}
    for entry in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        kernel = kernel_of(entry, name, version, digest)
        if kernel is not None:
            path = os.path.join(directory, entry)
            found[kernel] = StoredArchive(path, _noted_sum(path))
    return found


def kernel_of(entry: str, name: str, version: str, digest: str) -> str | None:
    """Return the kernel of an archive of one source by its file name, None for any other file."""
    form = r"%s-kernel(.+)-\w+-%s\.dkms\.tar\.gz\Z" % (re.escape("%s-%s" % (name, version)), digest[:12])
    match = re.match(form, entry)
    return match.group(1) if match and kernels.is_release(match.group(1)) else None


def store(directory: str, name: str, content: bytes) -> str:
    """Keep an archive in a real directory together with its checksum; return its path.

    An existing archive is not replaced: hosts may have it by now, and a signature is valid for that one only.
    """
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    line = "%s  %s\n" % (sha256(content), name)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # parallel runs may store the same archive
        if not os.path.lexists(path):
            # The archive last: a file of that name counts as complete.
            for target, data in ((path + ".sha256", line.encode()), (path, content)):
                _write(directory, target, data)
            os.fsync(handle)
    finally:
        os.close(handle)
    return path


def _write(directory: str, target: str, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".", delete=False) as stream:
        stream.write(data)
        os.fchmod(stream.fileno(), 0o644)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(stream.name, target)


def load(stored_archive: StoredArchive) -> bytes:
    """Return a stored archive's content, if it is what was stored."""
    with open(stored_archive.path, "rb") as stream:
        content = stream.read()
    check_sum(content, stored_archive.sha256, stored_archive.path)
    return content


def check_sum(content: bytes, expected: str, where: str) -> None:
    """Refuse what was damaged or replaced."""
    if sha256(content) != expected:
        raise HostError(
            "archive_checksum",
            "A prebuilt archive is not what its checksum says.",
            evidence=["%s: sha256 %s, expected %s" % (where, sha256(content), expected)],
            remedy="Find out who changed it; remove it and its .sha256, and run again to have it built anew.",
        )


def sha256(content: bytes) -> str:
    """Return the checksum in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _noted_sum(path: str) -> str:
    try:
        with open(path + ".sha256", encoding="utf-8") as stream:
            checksum = stream.read(4096).split()[0]
        if not _SHA256.match(checksum):
            raise ValueError("no SHA-256 checksum")
    except (OSError, LookupError, ValueError) as exc:
        raise HostError(
            "archive_checksum",
            "A prebuilt archive has no checksum beside it.",
            evidence=["%s.sha256: %s" % (path, exc)],
            remedy="Run `sha256sum` on it and write that file if you trust the archive; else remove the archive.",
        ) from exc
    return checksum
