# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints everything about a host that this collection could leave behind, as JSON.

Runs on the host (``ssh host python3 - < tests/hoststate.py``). Two prints are
equal exactly when the file tree and the kernel's device state are.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys

ROOTS = ("/boot", "/etc", "/home", "/opt", "/root", "/srv", "/usr", "/var")

# What any running system rewrites by itself, whoever uses it.
LIVING = (
    "/root/.ansible",
    "/var/cache",
    "/var/lib/apt/lists",
    "/var/lib/dhcp",
    "/var/lib/systemd",
    "/var/log",
    "/var/tmp",
    "/boot/grub/grubenv",
    # The copies that shadow-utils keeps of its files from before their last change.
    *("/etc/%s-" % name for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid")),
    # Read by no test, and tens of thousands of entries.
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    # DKMS makes its own signing key at the first build of any module and keeps
    # it: the operator may have enrolled it.
    "/var/lib/dkms/mok.key",
    "/var/lib/dkms/mok.pub",
)

# Modules that the host loads by itself, and keeps: the first since any DPDK
# program, as the tests' testpmd, opens an RDMA netlink socket to look for mlx5
# devices; the second as the driver of igb's virtual functions, when they appear.
LOADED_BY_ITSELF = {"ib_core", "igbvf"}

# Contents are compared here; elsewhere type, mode, owner and size tell enough.
COMPARE_CONTENT = ("/etc", "/usr/local", "/usr/src", "/usr/lib/modules", "/var/lib/dkms", "/var/lib/noiommu")
LARGE = 1 << 20
# Kernel headers: only packages write there.
LARGE_TREES = ("linux-headers-", "linux-kbuild-")


def describe(path):
    entry = os.lstat(path)
    mode = entry.st_mode
    about = [oct(mode), entry.st_uid, entry.st_gid]
    if stat.S_ISLNK(mode):
        about.append(os.readlink(path))
    elif stat.S_ISREG(mode):
        about.append(entry.st_size)
        if path.startswith(COMPARE_CONTENT) and entry.st_size < LARGE:
            with open(path, "rb") as content:
                about.append(hashlib.sha256(content.read()).hexdigest())
    return about


def files():
    tree = {}
    for root in ROOTS:
        for folder, folders, names in os.walk(root):
            folders[:] = [
                name
                for name in folders
                if os.path.join(folder, name) not in LIVING
                and name != "__pycache__"
                and not name.startswith(LARGE_TREES)
            ]
            for name in folders + names:
                path = os.path.join(folder, name)
                if path not in LIVING:
                    tree[path] = describe(path)
    return tree


def read(path):
    try:
        with open(path, encoding="utf-8") as content:
            return content.read().strip()
    except OSError:
        return None


def link(path):
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None


def listing(path):
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def devices():
    base = "/sys/bus/pci/devices"
    return {
        address: {
            "driver": link(os.path.join(base, address, "driver")),
            "driver_override": read(os.path.join(base, address, "driver_override")),
            "iommu": link(os.path.join(base, address, "iommu")),
            "grouped": link(os.path.join(base, address, "iommu_group")) is not None,
            "virtual functions": [
                read(os.path.join(base, address, name)) for name in ("sriov_numvfs", "sriov_drivers_autoprobe")
            ],
        }
        for address in listing(base)
    }


def interfaces():
    base = "/sys/class/net"
    return {
        name: {
            "mac": read(os.path.join(base, name, "address")),
            "mtu": read(os.path.join(base, name, "mtu")),
            "up": bool(int(read(os.path.join(base, name, "flags")), 16) & 1),
        }
        for name in listing(base)
        if os.path.exists(os.path.join(base, name, "flags"))
    }


def hugepages():
    base = "/sys/kernel/mm/hugepages"
    return {size: read(os.path.join(base, size, "nr_hugepages")) for size in listing(base)}


json.dump(
    {
        "files": files(),
        "pci": devices(),
        "interfaces": interfaces(),
        "iommu": listing("/sys/class/iommu"),
        "vfio": listing("/dev/vfio"),
        "modules": sorted({line.split()[0] for line in (read("/proc/modules") or "").splitlines()} - LOADED_BY_ITSELF),
        "hugepages": hugepages(),
        "run_rules": listing("/run/udev/rules.d"),
    },
    sys.stdout,
    sort_keys=True,
)
