# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A kernel module's source tree: what belongs to it, its digest and its archive.

Controller and host both use this, so that they agree on whether they have the same source.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
import zlib
from typing import Dict, NamedTuple

from .._base.errors import HostError

# Path below the source directory -> content.
Source = Dict[str, bytes]

_NAMES = re.compile(r"^(Kbuild|Kconfig|Makefile|dkms\.conf|(README|LICENSE|COPYING)([.-].*)?|.*\.(c|h|S|mk))$")
# What kbuild leaves behind, and what is not needed to build.
_NOT_NAMES = re.compile(r"\.mod\.c$")
_NOT_DIRS = {"examples", "tests"}
_LARGEST = 64 << 20  # bytes of a source


class Conf(NamedTuple):
    """What dkms.conf says of its package."""

    name: str
    version: str


def read_source(directory: str) -> Source:
    """Return the source files below a real directory; build products and hidden files are left out."""
    found: Source = {}
    for where, dirs, names in os.walk(directory):
        dirs[:] = [name for name in dirs if not name.startswith(".") and name not in _NOT_DIRS]
        for name in names:
            path = os.path.join(where, name)
            if _NAMES.match(name) and not _NOT_NAMES.search(name) and os.path.isfile(path):
                with open(path, "rb") as stream:
                    found[os.path.relpath(path, directory)] = stream.read()
    return found


def digest(source: Source) -> str:
    """Return a digest over paths and contents, whatever their order, times and modes."""
    total = hashlib.sha256()
    for path in sorted(source):
        total.update(("%s\0%d\0" % (path, len(source[path]))).encode())
        total.update(source[path])
    return total.hexdigest()


def pack(source: Source) -> bytes:
    """Return the source as tar.gz; the same source gives the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(source):
            member = tarfile.TarInfo(path)
            member.size = len(source[path])
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(source[path]))
    return gzip.compress(plain.getvalue(), mtime=0)


def unpack(packed: bytes) -> Source:
    """Return the regular files of an archive made by :func:`pack`."""
    found: Source = {}
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            plain = stream.read(_LARGEST + 1)
        if len(plain) > _LARGEST:
            raise ValueError("more than %d MiB" % (_LARGEST >> 20))
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None or member.name.startswith("/") or ".." in member.name.split("/"):
                    raise _bad_archive("The source archive holds something other than plain files.", member.name)
                found[member.name] = content.read()
    except (OSError, EOFError, ValueError, LookupError, zlib.error, tarfile.TarError) as exc:
        raise _bad_archive("The source archive is damaged.", "%s: %s" % (type(exc).__name__, exc)) from exc
    return found


def _bad_archive(message: str, seen: str) -> HostError:
    return HostError(
        "archive",
        message,
        evidence=[seen],
        remedy="Run the module through its action plugin, which makes the archive, and see that the remote temporary"
        " directory has space.",
    )


def read_conf(source: Source, where: str) -> Conf:
    """Return name and version from a source's dkms.conf."""
    text = source.get("dkms.conf")
    if text is None:
        raise HostError(
            "source",
            "The source directory has no dkms.conf.",
            evidence=["%s: %s" % (where, ", ".join(sorted(source)) or "no source files")],
            remedy="Give the directory that holds dkms.conf.",
        )
    fields = dict(
        re.findall(
            r'^\s*(PACKAGE_NAME|PACKAGE_VERSION)=["\']?([^"\'\s]+)', text.decode("utf-8", "replace"), re.MULTILINE
        )
    )
    for key in ("PACKAGE_NAME", "PACKAGE_VERSION"):
        if not re.match(r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", fields.get(key, "")):
            raise HostError(
                "source",
                "dkms.conf does not say %s in plain text." % key,
                evidence=["%s/dkms.conf: %s=%s" % (where, key, fields.get(key, ""))],
                remedy='Write a line such as %s="1.0".' % key,
            )
    return Conf(fields["PACKAGE_NAME"], fields["PACKAGE_VERSION"])
