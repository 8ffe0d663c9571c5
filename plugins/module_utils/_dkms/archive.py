# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of a built module, in the form of DKMS's own binary archives, and the directory that holds them.

One archive serves one kernel release. `dkms ldtarball` takes it as well.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
import tempfile
from typing import Dict, NamedTuple

from .._base.errors import HostError
from .._host import kernels

_ABOUT = "./dkms_binaries_only/"
_TREE = "./dkms_main_tree/"


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


class Stored(NamedTuple):
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
    members = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    members[member.name if member.name.startswith("./") else "./" + member.name] = stream.read()
        places = [re.match(re.escape(_TREE) + r"([^/]+)/([^/]+)/module/([^/]+)$", path) for path in members]
        found = [place for place in places if place]
        ((kernel, arch),) = {place.group(1, 2) for place in found}
        about = {
            key: members[_ABOUT + key].decode().strip() for key in ("PACKAGE_NAME", "PACKAGE_VERSION", "SOURCE_DIGEST")
        }
        modules = {place.group(3): members[place.group(0)] for place in found}
        conf = members[_ABOUT + "dkms.conf"]
        kernels.require_release(kernel, where)
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as exc:
        raise HostError(
            "archive",
            "A prebuilt archive is not one that this collection made for one kernel.",
            evidence=["%s: %s: %s" % (where, type(exc).__name__, exc)],
            remedy="Remove it where the controller keeps it, and run again: the build host then makes it anew.",
        ) from exc
    return Archive(
        about["PACKAGE_NAME"],
        about["PACKAGE_VERSION"],
        about["SOURCE_DIGEST"],
        kernel,
        arch,
        modules,
        conf,
        members.get(_ABOUT + "signing.der"),
    )


def file_name(name: str, version: str, digest: str, kernel: str, arch: str) -> str:
    """Return what the archive is called, so that source and kernel are known without opening it."""
    return "%s-%s-kernel%s-%s-%s.dkms.tar.gz" % (name, version, kernel, arch, digest[:12])


def stored(directory: str, name: str, version: str, digest: str) -> dict[str, Stored]:
    """Return a real directory's archives of one source, by kernel."""
    found = {}
    for entry in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        kernel = kernel_of(entry, name, version, digest)
        if kernel is not None:
            path = os.path.join(directory, entry)
            found[kernel] = Stored(path, _noted_sum(path))
    return found


def kernel_of(entry: str, name: str, version: str, digest: str) -> str | None:
    """Return the kernel of an archive of one source by its file name, None for any other file."""
    form = r"%s-kernel(.+)-\w+-%s\.dkms\.tar\.gz\Z" % (re.escape("%s-%s" % (name, version)), digest[:12])
    match = re.match(form, entry)
    return match.group(1) if match and kernels.is_release(match.group(1)) else None


def store(directory: str, name: str, content: bytes) -> str:
    """Keep an archive in a real directory together with its checksum; return its path."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    line = "%s  %s\n" % (sha256(content), name)
    # The archive last: with its name it is taken for complete.
    for target, data in ((path + ".sha256", line.encode()), (path, content)):
        # Runs beside this one may store the same.
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".", delete=False) as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), 0o644)
        os.rename(stream.name, target)
    return path


def load(stored_archive: Stored) -> bytes:
    """Return a stored archive's content, if it is what was stored."""
    with open(stored_archive.path, "rb") as stream:
        content = stream.read()
    check_sum(content, stored_archive.sha256, stored_archive.path)
    return content


def check_sum(content: bytes, expected: str, where: str) -> None:
    """Refuse what was damaged or exchanged."""
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
            return stream.read().split()[0]
    except (OSError, IndexError) as exc:
        raise HostError(
            "archive_checksum",
            "A prebuilt archive has no checksum beside it.",
            evidence=["%s.sha256: %s" % (path, exc)],
            remedy="Run `sha256sum` on it and write that file if you trust the archive; else remove the archive.",
        ) from exc
