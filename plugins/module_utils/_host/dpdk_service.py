# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the distribution's dpdk.service does by the files in /etc/dpdk: it reserves pages, and binds devices."""

from __future__ import annotations

import re
from typing import NamedTuple

from .._base.command import Runner
from .._base.fs import Root
from .._base.paths import WANTS_DIR
from .._base.sizes import UNITS

NAME = "dpdk.service"
CONF = "/etc/dpdk/dpdk.conf"
INTERFACES = "/etc/dpdk/interfaces"
# As the shell reads them: the last one counts.
_PAGES = re.compile(r"\s*NR_(\d+)([MG])_PAGES=[\"']?([\d ]*)")


class DpdkPages(NamedTuple):
    """Pages that it reserves, whatever the pool has already. It leaves a pool alone if the number is 0."""

    line: int
    size: int
    node: int | None
    number: int


class DpdkBinding(NamedTuple):
    """A device that it binds to a driver."""

    line: int
    address: str
    driver: str


def is_enabled(root: Root) -> bool:
    """Whether it runs at boot, which is the package's default."""
    return root.exists(WANTS_DIR, NAME)


def is_at_work(runner: Runner) -> bool:
    """Whether systemd still has to start it, or waits until it has ended."""
    job = runner.run("systemctl", "show", "--property=Job", "--value", NAME).stdout.strip()
    return job not in ("", "0")


def pages(root: Root) -> list[DpdkPages]:
    """Return what it reserves."""
    found: dict[int, list[DpdkPages]] = {}
    for number, line in enumerate(_lines(root, CONF), 1):
        match = _PAGES.match(line)
        if match:
            size, counts = int(match.group(1)) * UNITS[match.group(2)], match.group(3).split()
            nodes: list[int | None] = [None] if len(counts) == 1 else list(range(len(counts)))
            found[size] = [
                DpdkPages(number, size, node, int(count)) for node, count in zip(nodes, counts) if int(count)
            ]
    return [entry for entries in found.values() for entry in entries]


def bindings(root: Root) -> list[DpdkBinding]:
    """Return what it binds."""
    found = []
    for number, line in enumerate(_lines(root, INTERFACES), 1):
        fields = line.split()
        if len(fields) >= 3 and fields[0] == "pci":
            found.append(DpdkBinding(number, fields[1].lower(), fields[2]))
    return found


def _lines(root: Root, path: str) -> list[str]:
    return (root.read_bytes(path) or b"").decode("utf-8", "replace").splitlines()
