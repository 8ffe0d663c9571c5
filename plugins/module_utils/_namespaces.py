# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What other network namespaces (containers) have on top of this one's interfaces: sysfs does not show it."""

from __future__ import annotations

import ctypes
import os
import threading

from ._errors import HostError
from ._fs import Root
from ._netlink import Link, read_links

_CLONE_NEWNET = 0x40000000
_OURS = "/proc/self/ns/net"
# Kinds that are on top of another interface. A veth's other end is beside it.
_ON_TOP = ("macvlan", "macvtap", "ipvlan", "ipvtap", "vlan")


def namespaces(root: Root) -> dict[str, str]:
    """Return every other network namespace and a path by which to enter it."""
    found: dict[str, str] = {}
    for pid in (name for name in root.listdir("/proc") if name.isdigit()):
        path = "/proc/%s/ns/net" % pid
        name = root.readlink(path)
        if name:
            found.setdefault(name, path)
    found.pop(root.readlink(_OURS) or "", None)
    return found


def on_top(links: list[Link], where: str) -> dict[int, list[str]]:
    """Return the links of one namespace that are on top of one in another, by the index of that one.

    Which other namespace is not asked: a guard that stands on one too many is the safe side.
    """
    found: dict[int, list[str]] = {}
    for link in links:
        if link.kind in _ON_TOP and link.elsewhere and link.lower is not None:
            found.setdefault(link.lower, []).append("%s %s in %s" % (link.kind, link.name, where))
    return found


def links_in_other_namespaces(root: Root) -> dict[int, list[str]]:
    """Enter every other network namespace and look."""
    found: dict[int, list[str]] = {}
    for path in namespaces(root).values():
        comm = root.read_text(os.path.dirname(os.path.dirname(path)), "comm") or "?"
        where = "the namespace of process %s (%s)" % (path.split("/")[2], comm)
        for index, lines in on_top(_links_in(path), where).items():
            found.setdefault(index, []).extend(lines)
    return found


def _links_in(path: str) -> list[Link]:
    """Dump a namespace's links from a thread of its own: what it enters is nothing to this one."""
    links: list[Link] = []
    failures: list[HostError] = []

    def look() -> None:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # its process has ended
            return
        try:
            if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET) == 0:
                links.extend(read_links())
        except HostError as exc:
            failures.append(exc)
        finally:
            os.close(handle)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return links
