# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's mounts, as its first process sees them."""

from __future__ import annotations

import re
from typing import Iterable, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .._base.sizes import UNITS

MOUNTS = "/proc/1/mountinfo"
FSTAB = "/etc/fstab"
# As systemd knows them: it mounts these after the network (systemd.mount(5)).
_OVER_NETWORK = (
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "gfs",
    "gfs2",
    "glusterfs",
    "lustre",
    "ncp",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "pvfs2",
    "smb3",
    "smbfs",
    "sshfs",
)
_PAGE_SIZE = re.compile(r"(?:^|,)pagesize=(\d+)([KMG])(?:,|$)")
_LIMIT = re.compile(r"(?:^|,)size=(\d+)([KMG]?)(?:,|$)")
# Mounted before systemd starts any unit of the host's.
_BEFORE_ALL = ("/", "/usr")


class Mount(NamedTuple):
    """Where a filesystem is mounted, with which options of the mount and of the filesystem, and its type."""

    target: str
    options: list[str]
    fstype: str
    source: str
    numbers: str  # major:minor
    part: str  # the part of the filesystem that is mounted: / is all of it
    settings: str  # the filesystem's own options

    @property
    def page_size(self) -> int | None:
        """The size of the pages, of a hugetlbfs."""
        found = _PAGE_SIZE.search(self.settings)
        return int(found.group(1)) * UNITS[found.group(2)] if found and self.fstype == "hugetlbfs" else None

    @property
    def limit(self) -> int | None:
        """The limit for all files together, if there is one."""
        found = _LIMIT.search(self.settings)
        return int(found.group(1)) * UNITS[found.group(2)] if found else None


def read_mounts(root: Root, table: str = MOUNTS) -> list[Mount]:
    """Return all mounts, oldest first."""
    mounts = []
    for line in root.must_read(table).splitlines():
        head, _dash, tail = line.partition(" - ")
        fields, about = head.split(), tail.split()
        if len(fields) >= 6 and len(about) >= 2:
            target, source, settings = unescape(fields[4]), unescape(about[1]), "".join(about[2:3])
            mounts.append(
                Mount(target, fields[5].split(","), about[0], source, fields[2], unescape(fields[3]), settings)
            )
    return mounts


def shown_mounts(root: Root) -> dict[str, Mount]:
    """Return what shows at each place: of several mounts there the last, which is on top."""
    return {mount.target: mount for mount in read_mounts(root)}


def read_fstab(root: Root) -> list[list[str]]:
    """Return the fields of each line of /etc/fstab that mounts something, escaped: source, place, type and so on."""
    lines = (line.split() for line in root.must_read(FSTAB).splitlines())
    return [fields for fields in lines if len(fields) >= 3 and not fields[0].startswith("#")]


def unescape(text: str) -> str:
    """Return a field of mountinfo or fstab with its escapes resolved."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), text)


def mount_of(root: Root, path: str) -> Mount | None:
    """Return the mount that a path is on."""
    best = None
    for mount in read_mounts(root):
        inside = path == mount.target or path.startswith(mount.target.rstrip("/") + "/")
        # The last of several mounts at one place hides the others.
        if inside and (best is None or len(mount.target) >= len(best.target)):
            best = mount
    return best


def late_mount(root: Root, path: str) -> str | None:
    """Describe the mount that a path is on if it is mounted after the network at boot; None otherwise."""
    place = root.realpath(path)
    for fields in read_fstab(root):
        options = fields[3].split(",") if len(fields) > 3 else []
        if _is_over(unescape(fields[1]), place) and ("_netdev" in options or _is_of_network(fields[2])):
            return "/etc/fstab: " + " ".join(fields[:4])
    mount = mount_of(root, place)
    if mount is not None and _is_over(mount.target, place) and _is_of_network(mount.fstype):
        return "%s: %s (%s) is mounted on %s" % (MOUNTS, mount.source, mount.fstype, mount.target)
    return None


def _is_over(target: str, place: str) -> bool:
    return target not in _BEFORE_ALL and (place + "/").startswith(target.rstrip("/") + "/")


def _is_of_network(fstype: str) -> bool:
    return fstype.rpartition("fuse.")[2] in _OVER_NETWORK


def refuse_late(root: Root, paths: Iterable[str]) -> list[HostError]:
    """Refuse to keep there what the host needs at boot.

    Units that need such a mount but run before the network make an ordering cycle. systemd breaks it by dropping a job
    of its choice: the network itself, for example.
    """
    found = dict.fromkeys(seen for seen in (late_mount(root, path) for path in paths) if seen)
    if not found:
        return []
    return [
        HostError(
            "late_mount",
            "The files that bind devices and reserve pages at boot would be on a filesystem that is mounted"
            " after the network.",
            evidence=list(found),
            remedy="Keep /usr/local and /var/lib/noiommu on local disks: the boot could otherwise lose the network, and"
            " other hosts that share the filesystem would share the settings.",
        )
    ]
