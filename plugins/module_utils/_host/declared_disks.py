# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Block devices that the host's configuration mounts, unlocks or uses as swap."""

from __future__ import annotations

import re
from typing import Iterator, NamedTuple

from .._base.fs import Root
from .mounts import FSTAB, read_fstab, unescape

# For each of these tables, which fields name a block device.
_TABLES = {"/etc/crypttab": (1,), "/etc/integritytab": (1,), "/etc/veritytab": (1, 2)}
_UNITS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator.early",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_WHAT = re.compile(r"^\s*What\s*=\s*(.*?)\s*$", re.MULTILINE)
_AUTOFS_FOLDERS = ("/etc/auto.master.d", "/etc/autofs")
_BOOT_WORDS = ("root=", "resume=", "mount.usr=", "cryptdevice=")
_RESUME = "/etc/initramfs-tools/conf.d/resume"
_TAGS = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel", "ID": "by-id"}


class Named(NamedTuple):
    """One place that names a block device."""

    source: str  # a path or a tag such as UUID=
    where: str  # the file
    text: str  # the line


def named_disks(root: Root) -> Iterator[Named]:
    """Yield every place in the host's configuration that names a block device."""
    for fields in read_fstab(root):
        yield Named(unescape(fields[0]), FSTAB, " ".join(fields))
    for path, columns in _TABLES.items():
        yield from _of_table(root, path, columns)
    yield from _of_units(root)
    yield from _of_autofs(root)
    for path in ("/proc/cmdline", _RESUME):
        for word in root.must_read(path).split():
            if word.lower().startswith(_BOOT_WORDS):
                # cryptdevice=UUID=1234:name
                yield Named(word.partition("=")[2].partition(":")[0], path, word)


def _of_table(root: Root, path: str, columns: tuple[int, ...]) -> Iterator[Named]:
    for line in root.must_read(path).splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        sources = [fields[column] for column in columns if column < len(fields)]
        # A key or a header of LUKS may be on a disk of its own: /key:UUID=1234, header=/dev/sdb.
        sources += re.findall(r"(?:header=|:)((?:/dev/|[A-Z]+=)[^,:\s]+)", " ".join(fields[2:]))
        for source in sources:
            yield Named(source, path, " ".join(fields))


def _of_units(root: Root) -> Iterator[Named]:
    for folder in _UNITS:
        for name in root.must_list(folder):
            path = folder + "/" + name
            if name.endswith((".mount", ".swap")):
                yield from _of_unit(root, path)
            elif name.endswith((".mount.d", ".swap.d")):
                for drop_in in root.must_list(path):
                    yield from _of_unit(root, path + "/" + drop_in)


def _of_unit(root: Root, path: str) -> Iterator[Named]:
    for what in _WHAT.findall(root.must_read(path)):
        yield Named(what.strip("\"'"), path, "What=" + what)


def _of_autofs(root: Root) -> Iterator[Named]:
    """A map's line has the place, options, and what is mounted: a device is written with a colon before it."""
    for path in dict.fromkeys(_autofs_files(root)):
        for line in root.must_read(path).splitlines():
            for word in line.split("#")[0].split():
                if word.startswith(":") and device_path(root, word[1:]) is not None:
                    yield Named(word[1:], path, " ".join(line.split()))


def _autofs_files(root: Root) -> Iterator[str]:
    paths = ["/etc/" + name for name in root.must_list("/etc") if name.startswith("auto.")]
    paths += ["%s/%s" % (folder, name) for folder in _AUTOFS_FOLDERS for name in root.must_list(folder)]
    for path in paths:
        yield path
        for line in root.must_read(path).splitlines():
            words = line.split("#")[0].split()
            if len(words) > 1 and "/" in words[1]:
                yield words[1].rpartition(":")[2]


def device_path(root: Root, source: str) -> str | None:
    """Return the file in /dev that a path or a tag means, if it means one."""
    if source.startswith("/dev/"):
        return source
    tag, _equals, value = source.partition("=")
    if tag not in _TAGS:
        return None
    # udev escapes characters that a file name cannot have as \\x20 and the like; UUIDs are compared as mount(8) does.
    wanted = re.sub(
        r"[^\w#+.:=@-]", lambda match: "".join("\\x%02x" % byte for byte in match.group().encode()), value.strip("\"'")
    ).lower()
    directory = "/dev/disk/" + _TAGS[tag]
    return next((directory + "/" + name for name in root.listdir(directory) if name.lower() == wanted), None)
