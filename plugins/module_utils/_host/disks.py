# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's block devices and their users, most of which leave no link in sysfs."""

from __future__ import annotations

import errno
import os
import re
from functools import cached_property

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .declared_disks import device_path, named_disks
from .mounts import MOUNTS, Mount, read_mounts, unescape
from .pci import below
from .processes import described, is_for_writing, name_of, open_files

BLOCK = "/sys/class/block"
_NVME = "/sys/class/nvme"
_NVME_SUBSYSTEMS = "/sys/class/nvme-subsystem"
_NVME_TARGETS = "/sys/kernel/config/nvmet/subsystems"
_FC_HOSTS = "/sys/class/fc_host"
_FC_PORT = re.compile(r"\bhost_traddr=[^,]*\bpn-(0x[0-9a-f]+)", re.IGNORECASE)
# Character devices through which a disk is used past its block device.
_RAW = ("/sys/class/scsi_generic", "/sys/class/nvme-generic", _NVME)
# What a disk with such a signature is a member of, in use at the moment or not.
_MEMBERS = {
    "LVM2_member": "LVM",
    "linux_raid_member": "RAID (md)",
    "zfs_member": "ZFS",
    "ceph_bluestore": "Ceph",
    "stratis": "Stratis",
    "bcache": "bcache",
    "drbd": "DRBD",
}
_UDEV_DATABASE = "/run/udev/data"
# Something found, nothing found (or no medium), more than one thing found.
_BLKID_ANSWERS = (0, 2, 8)
_UDEV = ("systemd-udevd", "(udev-worker)", "udevd")


class Disks:
    """A snapshot of all of them; each part is read only if a device needs it."""

    def __init__(self, root: Root) -> None:
        self.root = root

    # --- what there is ---

    @cached_property
    def paths(self) -> dict[str, str]:
        """Every block device's kernel name and its directory below /sys/devices."""
        return {name: self.root.target(BLOCK, name) for name in self.root.must_list(BLOCK)}

    @cached_property
    def below(self) -> dict[str, list[str]]:
        """The block devices on or below each device that has any."""
        return below(self.paths)

    @cached_property
    def _raw_paths(self) -> dict[str, str]:
        return {name: self.root.target(folder, name) for folder in _RAW for name in self.root.listdir(folder)}

    @cached_property
    def raw_below(self) -> dict[str, list[str]]:
        """The character devices of disks (sg0, ng0n1, nvme0) on or below each device that has any."""
        return below(self._raw_paths)

    @cached_property
    def _names(self) -> dict[tuple[str, str | None], str]:
        """Kernel names by kind and number, whatever the file in /dev is called."""
        pairs = [("b", name, path) for name, path in self.paths.items()]
        pairs += [("c", name, path) for name, path in self._raw_paths.items()]
        return {(kind, self.root.read_text(path, "dev")): name for kind, name, path in pairs}

    def _named(self, path: str) -> str | None:
        """Return the kernel name of the device that a file is."""
        node = self.root.node(path)
        if node is not None:
            return self._names.get(node)
        return os.path.basename(self.root.realpath(path)) if path.startswith("/dev/") else None

    def numbers(self, name: str) -> str | None:
        """Return a block device's ``major:minor``."""
        return self.root.read_text(BLOCK, name, "dev")

    # --- what they hang on, if not on a PCI device's directory ---

    def nvme_paths(self, real: str) -> list[str]:
        """Return the directories below which the NVMe disks of the device with this directory are, besides its own.

        With multipath they hang on the subsystem, and over Fibre Channel on a controller that has no device above it.
        """
        paths = {name: self._raw_paths[name] for name in self.root.listdir(_NVME)}
        ours = {name for name, path in paths.items() if path.startswith(real + "/")}
        remote = self._fc_controllers(real, paths)
        if not ours and not remote:
            return []
        subsystems = [
            self.root.target(_NVME_SUBSYSTEMS, name)
            for name in self.root.listdir(_NVME_SUBSYSTEMS)
            if (ours | remote).intersection(self.root.listdir(_NVME_SUBSYSTEMS, name))
        ]
        return [paths[name] for name in sorted(remote)] + subsystems

    def _fc_controllers(self, real: str, names: dict[str, str]) -> set[str]:
        hosts = [
            name for name in self.root.listdir(_FC_HOSTS) if self.root.target(_FC_HOSTS, name).startswith(real + "/")
        ]
        ports = {self.root.read_int(_FC_HOSTS, name, "port_name") for name in hosts}
        if not ports:
            return set()
        found = {
            name: _FC_PORT.search(self.root.read_text(_NVME, name, "address") or "")
            for name in names
            if self.root.read_text(_NVME, name, "transport") == "fc"
        }
        return {name for name, match in found.items() if match and int(match.group(1), 16) in ports}

    # --- what uses them ---

    @cached_property
    def mounts(self) -> list[Mount]:
        """What is mounted for the host."""
        # Without privileges only this process's table can be read, which is usually the same.
        mounts = read_mounts(self.root) or read_mounts(self.root, "/proc/self/mountinfo")
        if not mounts and self.root.is_live:
            raise HostError(
                "unreadable",
                "Cannot tell what this host has mounted: its table of mounts is empty or absent.",
                evidence=["%s: no mounts" % MOUNTS],
                remedy="Mount /proc, and run on the host itself and not in a container.",
            )
        # A source may be a link such as /dev/mapper/vg-root or /dev/disk/by-uuid/...
        real = {mount.source: self.root.realpath(mount.source) for mount in mounts if mount.source.startswith("/dev/")}
        return [mount._replace(source=real.get(mount.source, mount.source)) for mount in mounts]

    @cached_property
    def declared(self) -> dict[str, tuple[str, str]]:
        """Kernel names of what the configuration mounts, unlocks or uses as swap, each with file and line."""
        found: dict[str, tuple[str, str]] = {}
        for named in named_disks(self.root):
            path = device_path(self.root, named.source)
            if path is not None:
                found.setdefault(os.path.basename(self.root.realpath(path)), (named.where, named.text))
        # A filesystem on several disks may be named by any of them.
        lines = {self._udev(name, "ID_FS_UUID"): line for name, line in found.items()}
        for name in self.paths if found else ():
            uuid = self._udev(name, "ID_FS_UUID")
            if uuid is not None and uuid in lines:
                found.setdefault(name, lines[uuid])
        return found

    @cached_property
    def swaps(self) -> set[str]:
        """Kernel names of the block devices swapped to."""
        lines = self.root.must_read("/proc/swaps").splitlines()[1:]
        paths = [fields[0] for fields in map(str.split, lines) if len(fields) > 1 and fields[1] == "partition"]
        return {self._named(path) or os.path.basename(self.root.realpath(path)) for path in map(unescape, paths)}

    def in_btrfs(self, name: str) -> bool:
        """mountinfo names one device of a btrfs; sysfs names all, while it is mounted."""
        return any(self.root.exists("/sys/fs/btrfs", fs, "devices", name) for fs in self.root.listdir("/sys/fs/btrfs"))

    def holders(self, name: str) -> list[str]:
        """Return the block devices on top of one."""
        return self.root.must_list(self.paths[name], "holders") + self._loops.get(name, [])

    @cached_property
    def _loops(self) -> dict[str, list[str]]:
        """The loop devices on each block device: nothing else in sysfs leads from one to the other."""
        found: dict[str, list[str]] = {}
        for loop in (name for name in self.paths if name.startswith("loop")):
            # kubelet makes one on each raw volume, on a file of its own that is the device.
            backing = self._named(self.root.read_text(BLOCK, loop, "loop/backing_file") or "")
            if backing is not None:
                found.setdefault(backing, []).append(loop)
        return found

    def partitions(self, name: str) -> list[str]:
        """Return the partitions of a stacked device, such as md0p1."""
        base = self.paths[name] + "/"
        return [other for other, path in self.paths.items() if path.startswith(base)]

    def is_claimed(self, name: str) -> bool:
        """Whether the kernel holds a disk exclusively: catches what has no link in sysfs, such as ZFS."""
        if not self.root.is_live:
            return False
        try:
            os.close(os.open(_node_of(name), os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
        except OSError as exc:
            return exc.errno == errno.EBUSY
        return False

    @cached_property
    def writers(self) -> dict[str, list[str]]:
        """The processes that have a block or character device open for writing, by its kernel name.

        QEMU and Oracle ASM, for example, do not open raw disks exclusively. udev and blkid open for reading; udev
        is left out all the same, because it does not use what it opens.
        """
        nodes = {_node_of(name): name for name in (*self.paths, *self._raw_paths)}
        found: dict[str, list[str]] = {}
        writing = (opened for opened in open_files(self.root, nodes) if is_for_writing(self.root, opened))
        for name, pid in sorted({(nodes[opened.path], opened.pid) for opened in writing}):
            if name_of(self.root, pid) not in _UDEV:
                found.setdefault(name, []).append(described(self.root, pid))
        return found

    @cached_property
    def exports(self) -> dict[str, list[str]]:
        """What the kernel's NVMe target exports, by kernel name; it opens nothing exclusively."""
        found: dict[str, list[str]] = {}
        for subsystem in self.root.listdir(_NVME_TARGETS):
            base = "%s/%s" % (_NVME_TARGETS, subsystem)
            numbers = self.root.listdir(base, "namespaces")
            for part in [base + "/passthru"] + ["%s/namespaces/%s" % (base, number) for number in numbers]:
                name = self._named(self.root.read_text(part, "device_path") or "")
                if name is not None and self.root.read_text(part, "enable") == "1":
                    found.setdefault(name, []).append(part)
        return found

    # --- what is on them ---

    def _udev(self, name: str, key: str) -> str | None:
        return self._udev_properties[name].get(key) if name in self.paths else None

    @cached_property
    def _udev_properties(self) -> dict[str, dict[str, str]]:
        texts = {name: self.root.must_read(_UDEV_DATABASE, "b%s" % self.numbers(name)) for name in self.paths}
        return {name: dict(re.findall(r"^E:(\w+)=(.*)$", text, re.MULTILINE)) for name, text in texts.items()}

    def _signatures(self, name: str) -> dict[str, str]:
        """Return what udev found on a disk, or what blkid finds if udev has not looked."""
        known = self._udev_properties.get(name, {})
        return known if known or not self.root.is_live else _probe(_node_of(name))

    def member_of(self, name: str) -> str | None:
        """Say what a disk is a member of, by its signature."""
        seen = self._signatures(name)
        kind = seen.get("ID_FS_TYPE", "")
        if kind in _MEMBERS:
            return _MEMBERS[kind]
        if kind.endswith("_raid_member"):
            return "firmware RAID"
        is_member = seen.get("ID_FS_USAGE") == "raid" or kind.endswith("_member")
        return kind.replace("_member", "") if is_member else None

    def data_on(self, name: str) -> str | None:
        """Say what data a disk holds, by any signature: a filesystem, an encrypted volume, a partition table."""
        seen = self._signatures(name)
        if seen.get("ID_FS_TYPE"):
            label = seen.get("ID_FS_LABEL")
            return "%s (%s%s)" % (seen["ID_FS_TYPE"], seen.get("ID_FS_USAGE", "data"), ", " + label if label else "")
        if seen.get("ID_FS_AMBIVALENT"):
            return "several signatures: " + seen["ID_FS_AMBIVALENT"]
        # udev gives each partition the properties of its disk.
        if seen.get("ID_PART_TABLE_TYPE") and not self.root.exists(BLOCK, name, "partition"):
            return "a partition table (%s)" % seen["ID_PART_TABLE_TYPE"]
        return None


def _probe(node: str) -> dict[str, str]:
    done = Runner().run("blkid", "-p", "-o", "udev", node)
    if done.rc not in _BLKID_ANSWERS:
        raise HostError(
            "unreadable",
            "Cannot tell what is on %s: udev does not know it, and blkid failed." % node,
            evidence=["blkid -p %s: exit code %d, %s" % (node, done.rc, done.stderr.strip() or "no message")],
            remedy="Start udev (systemctl start systemd-udevd; udevadm trigger) or find out why blkid fails, then run.",
        )
    return dict(re.findall(r"^(\w+)=(.*)$", done.stdout, re.MULTILINE))


def _node_of(name: str) -> str:
    return "/dev/" + name.replace("!", "/")
