# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the lines of the host's network configuration that name an interface: one reader for each format."""

from __future__ import annotations

import re
from typing import Callable, Iterator, NamedTuple

from .._base.fs import Root

_INTERFACES = "/etc/network/interfaces"
_SOURCE = re.compile(r"^\s*source(?:-directory)?\s+(\S+)", re.MULTILINE)
_NETPLAN = ("/etc/netplan", "/run/netplan", "/usr/lib/netplan", "/lib/netplan")
_NETWORKD = (
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
)
_KEYFILES = (
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
)
_IFCFG = ("/etc/sysconfig/network-scripts", "/etc/sysconfig/network")
_CLOUD_INIT = ("/etc/cloud/cloud.cfg.d", "/var/lib/cloud/seed/nocloud", "/var/lib/cloud/seed/nocloud-net")
_CMDLINE = "/proc/cmdline"
# What of a file in INI form names an interface: networkd's keys, NetworkManager's, those of ifcfg files.
_KEYS = (
    *("name", "originalname", "macaddress", "permanentmacaddress", "path", "property"),
    *("interface-name", "mac-address", "parent", "device", "hwaddr"),
)


class Identity(NamedTuple):
    """What a configuration may call a device's interfaces by."""

    names: frozenset[str]
    macs: frozenset[str]
    address: str  # of the PCI function


class Mention(NamedTuple):
    """A line that names one."""

    where: str  # file and line
    text: str


def mentions(root: Root, identity: Identity) -> list[Mention]:
    """Return every line that names an interface of a device. Patterns such as en* name none in particular."""
    found = [
        Mention("%s:%d" % (path, number), " ".join(line.split()))
        for path, reader in dict(_files(root)).items()
        for number, line in enumerate(root.must_read(path).splitlines(), 1)
        if any(_is_named(word, identity) for word in reader(line))
    ]
    words = [word for word in root.must_read(_CMDLINE).split() if word.startswith(("ip=", "ifname="))]
    return found + [Mention(_CMDLINE, word) for word in words if _is_in_parameter(word, identity)]


def _files(root: Root) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    for path in _ifupdown_files(root):
        yield path, _ifupdown
    for folders, endings, reader in (
        (_NETPLAN, (".yaml",), _yaml),
        (_CLOUD_INIT, (".cfg", "network-config"), _yaml),
        (_NETWORKD, (".network", ".link", ".netdev", ".conf"), _ini),
        (_KEYFILES, (".nmconnection",), _ini),
    ):
        for folder in folders:
            yield from ((path, reader) for path in _below(root, folder) if path.endswith(endings))
    for folder in _IFCFG:
        yield from ((path, _ini) for path in _below(root, folder) if "/ifcfg-" in path)


def _below(root: Root, folder: str) -> list[str]:
    """Return the files in a directory and in its drop-in directories."""
    found = []
    for name in root.must_list(folder):
        path = folder + "/" + name
        found += _below(root, path) if name.endswith(".d") else [path]
    return found


def _ifupdown_files(root: Root) -> Iterator[str]:
    yield _INTERFACES
    for pattern in [*_SOURCE.findall(root.must_read(_INTERFACES)), _INTERFACES + ".d"]:
        path = pattern if pattern.startswith("/") else "/etc/network/" + pattern
        folder = path.rpartition("/")[0]
        if "*" in path:
            yield from (folder + "/" + name for name in root.must_list(folder))
        elif root.must_list(path):
            yield from (path + "/" + name for name in root.must_list(path))
        else:
            yield path


# --- readers: the words of a line that may be an interface ---


def _ifupdown(line: str) -> list[str]:
    """interfaces(5): auto eth1, iface eth1.7 inet dhcp, bridge_ports eth1 eth2, up ip link set eth1 up."""
    words = [] if line.lstrip().startswith("#") else line.split()
    # eth1:0 is a second address of eth1.
    return [word if _MAC.match(word) else word.partition(":")[0] for word in words]


def _yaml(line: str) -> list[str]:
    """netplan and cloud-init: keys, values and items of lists."""
    return [word.rstrip(":") for word in re.findall(r"[^\s,\[\]{}\"']+", re.sub(r"(^|\s)#.*", "", line))]


def _ini(line: str) -> list[str]:
    """networkd, NetworkManager's keyfiles, ifcfg files: keys that name an interface."""
    key, _equals, value = line.partition("=")
    return re.split(r"[\s;\"']+", value) if key.strip().lower() in _KEYS else []


_MAC = re.compile(r"^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$", re.IGNORECASE)


def _is_named(word: str, identity: Identity) -> bool:
    # eth1.7 is a VLAN of eth1.
    if word in identity.names or word.partition(".")[0] in identity.names:
        return True
    return word.lower().replace("-", ":") in identity.macs or word.rstrip("*") == "pci-" + identity.address


def _is_in_parameter(word: str, identity: Identity) -> bool:
    """ip=192.0.2.5::192.0.2.1:255.255.255.0::eth1:off, ip=eth1:dhcp, ifname=eth1:52:54:00:00:00:01."""
    lowered = word.lower()
    return any(mac in lowered for mac in identity.macs) or bool(identity.names & set(re.split(r"[=:]", word)))
