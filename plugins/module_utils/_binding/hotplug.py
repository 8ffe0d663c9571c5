# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that appear while the host runs: udev announces them, and one run binds all that appear together.

An announcement is a directory named after the PCI address. It is removed before the device is examined, so that a later
announcement is not lost: systemd starts the service again as long as there is any.
"""

from __future__ import annotations

import time
from typing import Callable, Iterable

from .._base.errors import HostError
from .._base.fs import Root
from .._base.lock import BUSY
from .._base.paths import ANNOUNCED

# Once no other device has appeared for this time, all are there.
_QUIET = 0.5
# An endless stream of announcements must not keep the devices waiting.
_GATHERING = 5.0
_INTERVAL = 0.2


def announce(root: Root, addresses: Iterable[str]) -> None:
    """Have the service examine these devices once more, after everything else."""
    for address in addresses:
        root.make_dirs("%s/%s" % (ANNOUNCED, address))


def take_announced(root: Root) -> set[str]:
    """Return the announced devices and remove the announcements."""
    addresses = set(root.listdir(ANNOUNCED))
    for address in addresses:
        root.remove_empty_dir("%s/%s" % (ANNOUNCED, address))
    return addresses


def forget_announced(root: Root) -> None:
    """Remove announcements that nothing handles any more."""
    take_announced(root)
    root.remove_empty_dir(ANNOUNCED)


class HotPlug:
    """One run for all devices that appear while it runs."""

    def __init__(
        self, root: Root, awaited: Callable[[], set[str]], bind: Callable[[set[str]], int], patience: float
    ) -> None:
        """``awaited`` returns the devices that have yet to show their identity; they are given ``patience`` seconds."""
        self._root, self._awaited, self._bind, self._patience = root, awaited, bind, patience
        self._waiting: dict[str, float] = {}  # until when to wait for each device

    def run(self) -> int:
        """Bind what was announced; return how many devices could not be bound."""
        try:
            return self._run()
        except HostError as exc:
            if exc.code == BUSY:  # systemd starts the service again, as long as anything is announced
                announce(self._root, self._waiting)
            raise

    def _run(self) -> int:
        failed = 0
        while self._gather():
            awaited, now = self._awaited(), time.monotonic()
            ready = {address for address, until in self._waiting.items() if address not in awaited or now >= until}
            if ready:
                failed += self._bind(ready)
                self._waiting = {key: until for key, until in self._waiting.items() if key not in ready}
            else:
                time.sleep(_INTERVAL)
        return failed

    def _gather(self) -> bool:
        """Collect announcements until no more arrive; return whether there is anything to do."""
        end = time.monotonic() + _GATHERING
        while True:
            came = take_announced(self._root)
            self._waiting.update(dict.fromkeys(came, time.monotonic() + self._patience))
            if not came or time.monotonic() >= end:
                return bool(self._waiting)
            time.sleep(_QUIET)


def rules(kinds: set[str], pf_kinds: set[str]) -> str:
    """Return udev's rules for devices of these kinds (vendor:device); physical functions also when a driver binds them.

    Binding by hand is not hot-plug: a device that somebody returned to the host for a while stays there.
    """
    lines = ['SUBSYSTEM!="pci", GOTO="noiommu_end"']
    for kind in sorted(kinds | pf_kinds):
        vendor, device = kind.split(":")
        lines.append(
            'ACTION=="%s", ATTR{vendor}=="0x%s", ATTR{device}=="0x%s", RUN+="/bin/mkdir -p %s/%%k"'
            % ("add|bind" if kind in pf_kinds else "add", vendor, device, ANNOUNCED)
        )
    return "\n".join([*lines, 'LABEL="noiommu_end"', ""])
