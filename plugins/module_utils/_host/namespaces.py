# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network namespaces: whether sysfs shows this process's own, and which of the host's devices others use."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import threading
import time
from typing import Callable, NamedTuple

from .._base.errors import HostError
from .._base.fs import Root
from .mounts import MOUNTS, Mount, read_mounts
from .netlink import Link, read_links
from .pci import NET
from .processes import borrowed, described, pids

_CLONE_NEWNET, _NS_GET_NSTYPE, _SIOCGSKNS = 0x40000000, 0xB703, 0x894C
_OURS = "/proc/self/ns/net"
# Kinds that come in pairs: what such an interface names as its lower one is its peer. All others are on top of theirs.
PAIRS = ("veth", "netkit", "vxcan")
# The kernel does not say of these whether the interface below is in another namespace.
_ON_TOP_ANYWHERE = ("ipoib",)
_TRIES, _PAUSE = 6, 0.2
_NET = "net:["  # how a link to a network namespace begins
_TUN = "/dev/net/tun"


class Elsewhere(NamedTuple):
    """What other network namespaces have."""

    on_top: dict[int, list[str]]  # on top of an interface of this one, by its index
    devices: list[tuple[str, str]]  # of a device: its directory below /sys/devices, and what


def ensure_ours(root: Root, indexes: Callable[[], list[tuple[int, str]]] = socket.if_nameindex) -> None:
    """Raise if sysfs shows another network namespace than the one of this process's sockets.

    A container with the host's /sys is like that, and `unshare --net`: no address would be found on any interface.
    """
    lasting: set[tuple[int | None, str]] = set()
    for attempt in range(_TRIES):
        shown = {(root.read_int(NET, name, "ifindex"), name) for name in root.must_list(NET)}
        shown = {(index, name) for index, name in shown if index is not None}  # bonding_masters is not an interface
        ours: set[tuple[int | None, str]] = set(indexes())
        differing = shown ^ ours
        lasting = lasting & differing if attempt else differing
        if not lasting:
            return
        # An interface that is just being renamed, made or removed differs only for a moment.
        time.sleep(_PAUSE)
    raise HostError(
        "network_namespace",
        "/sys shows the interfaces of another network namespace than the one that this process is in.",
        evidence=_listed("%s has, and the process has not: %%s" % NET, shown & lasting)
        + _listed("the process has, and %s has not: %%s" % NET, ours & lasting),
        remedy="Run on the host itself: not in a container, and not below `ip netns exec` or `unshare --net`.",
    )


def _listed(text: str, interfaces: set[tuple[int | None, str]]) -> list[str]:
    names = ["%s (index %s)" % (name, index) for index, name in sorted(interfaces, key=lambda pair: pair[1])]
    return [text % (", ".join(names[:5]) + (" and more" if names[5:] else ""))] if names else []


def namespaces(root: Root) -> dict[str, list[str]]:
    """Return every other network namespace and the paths by which to enter it: one may be gone in a moment.

    One exists as long as a thread is in it, a descriptor of it or a socket that was made in it is open, or it is
    mounted in any mount namespace: what `ip netns add`, container runtimes and CNI plugins make has no process of its
    own.
    """
    found: dict[str, list[str]] = {}
    mount_namespaces: dict[str, list[str]] = {}
    filesystem = (root.file_id(_OURS) or (None, 0))[0]
    sockets: set[str] = set()
    for pid in pids(root):
        base = "/proc/" + pid
        for path in _threads(root, base):
            found.setdefault(root.readlink(path) or "", []).append(path)
        for path in ("%s/fd/%s" % (base, fd) for fd in root.must_list(base, "fd")):
            name = root.readlink(path) or ""
            # One socket has one namespace, however many have it open; any queue of a tap has one of its own.
            if _is_socket(name) and root.is_live and (name not in sockets or name == _TUN):
                sockets.add(name)
                found.setdefault(_of_socket(path) or "", []).append(path)
            found.setdefault(_held(root, path, filesystem) or "", []).append(path)
        mount_namespaces.setdefault(root.readlink(base, "ns/mnt") or "", []).append(base)
    for name in ("", root.readlink("/proc/1/ns/mnt") or ""):
        mount_namespaces.pop(name, None)
    tables = [("", read_mounts(root, MOUNTS)), *(_mounts_of(root, bases) for bases in mount_namespaces.values())]
    for prefix, mounts in tables:
        for mount in mounts:
            if mount.fstype == "nsfs" and mount.part.startswith(_NET):
                found.setdefault(mount.part, []).append(prefix + mount.target)
    for name in ("", root.readlink(_OURS) or ""):
        found.pop(name, None)
    return found


def _mounts_of(root: Root, bases: list[str]) -> tuple[str, list[Mount]]:
    """Return the mounts of a mount namespace, by the first of its processes that still shows them."""
    for base in bases:
        try:
            return base + "/root", read_mounts(root, base + "/mountinfo")
        except HostError:
            if root.readlink(base, "ns/mnt") is not None:  # else it is ending, and is in no namespace any more
                raise
    return "", []


def _held(root: Root, path: str, filesystem: str | None) -> str | None:
    """Return the network namespace that a descriptor is of. One that was opened by a mount shows that as its path."""
    name = root.readlink(path) or ""
    if not name.startswith("/"):
        return name if name.startswith(_NET) else None
    where = root.file_id(path) if filesystem else None
    if where is None or where[0] != filesystem:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # its process has ended or closed it
        return None
    try:
        kind = fcntl.ioctl(handle, _NS_GET_NSTYPE)
    finally:
        os.close(handle)
    return "%s%d]" % (_NET, where[1]) if kind == _CLONE_NEWNET else None


def _is_socket(name: str) -> bool:
    """Whether a descriptor with this name keeps the namespace that it was made in."""
    return name.startswith("socket:[") or name == _TUN


def _of_socket(path: str) -> str | None:
    """Return the network namespace of a socket that a process has open; None where that cannot be told."""
    try:
        handle = _socket_namespace(path)
    except OSError:  # it was closed; or before Linux 5.6, or where tracing is forbidden to root (Yama's scope 3)
        return None
    try:
        return "%s%d]" % (_NET, os.fstat(handle).st_ino)
    finally:
        os.close(handle)


def _socket_namespace(path: str) -> int:
    """Open the network namespace of a socket."""
    _empty, _proc, pid, _fd, fd = path.split("/")
    with borrowed(int(pid), int(fd)) as ours:
        return fcntl.ioctl(ours, _SIOCGSKNS)


def _threads(root: Root, base: str) -> list[str]:
    """Return the links to the namespace of each thread of a process: they may differ."""
    others = (tid for tid in root.must_list(base, "task") if tid != base.rpartition("/")[2])
    return [base + "/ns/net"] + ["%s/task/%s/ns/net" % (base, tid) for tid in others]


def on_top(links: list[Link], where: str) -> dict[int, list[str]]:
    """Return the links of one namespace that are on top of one in another, by the index of that one.

    Which other namespace that is does not matter: guarding one interface too many is safe.
    """
    found: dict[int, list[str]] = {}
    for link in links:
        elsewhere = (link.elsewhere and link.kind not in PAIRS) or link.kind in _ON_TOP_ANYWHERE
        if elsewhere and link.lower is not None:
            found.setdefault(link.lower, []).append("%s %s in %s" % (link.kind or "interface", link.name, where))
    return found


def of_devices(root: Root, links: list[Link], where: str) -> list[tuple[str, str]]:
    """Return the links of one namespace that belong to a device, by the device's directory below /sys/devices."""
    return [
        (root.target("/sys/bus", link.bus, "devices", link.device), "%s is in %s" % (link.name, where))
        for link in links
        if link.bus and link.device
    ]


def look_elsewhere(root: Root) -> Elsewhere:
    """Enter every other network namespace and look."""
    found = Elsewhere({}, [])
    for name, paths in namespaces(root).items():
        where = _where(root, paths[0])
        links = _links_in(name, paths, where)
        for index, lines in on_top(links, where).items():
            found.on_top.setdefault(index, []).extend(lines)
        found.devices.extend(of_devices(root, links, where))
    return found


def _where(root: Root, path: str) -> str:
    if not path.startswith("/proc/"):
        return "the network namespace %s" % path
    how = "that %s keeps" if "/fd/" in path or "/root/" in path else "of %s"
    return "the namespace " + how % described(root, path.split("/")[2])


def _links_in(name: str, paths: list[str], where: str) -> list[Link]:
    """Dump a namespace's links in a separate thread, which enters it: this thread stays in its own."""
    links: list[Link] = []
    failures: list[HostError] = []

    def look() -> None:
        try:
            if _enter(name, paths):
                links.extend(read_links())
        except OSError as exc:
            failures.append(_closed(where, exc))
        except HostError as exc:
            failures.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return links


def _enter(name: str, paths: list[str]) -> bool:
    """Move the calling thread into a namespace by the first path that leads there; False if none is left."""
    failure = None
    for path in paths:
        try:
            _enter_by(path, name)
            return True
        except OSError as exc:
            if os.path.exists(path):  # else its process has ended, or it was unmounted
                failure = exc
    if failure is not None:
        raise failure
    return False


def _enter_by(path: str, name: str) -> None:
    by_socket = "/fd/" in path and _is_socket(os.readlink(path))
    handle = _socket_namespace(path) if by_socket else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if name != "net:[%d]" % os.fstat(handle).st_ino:
            raise OSError(errno.ESTALE, "something else is at %s" % path)
        _setns(handle)
    finally:
        os.close(handle)


def _setns(handle: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _closed(where: str, exc: OSError) -> HostError:
    # Without this information no guard can vouch for a device: refuse instead of guessing.
    return HostError(
        "network_namespace",
        "Cannot see what %s has on top of the host's interfaces: %s." % (where, exc.strerror),
        evidence=["entering %s: %s" % (where, exc)],
        remedy="Run with become: true, on the host itself and not in a container: this takes CAP_SYS_ADMIN.",
        errno=exc.errno,
    )
