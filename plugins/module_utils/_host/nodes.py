# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Character devices below each device and the processes that have them open: consoles, modems, tapes, displays."""

from __future__ import annotations

from functools import cached_property

from .._base.fs import Root
from .pci import below
from .processes import described, open_files

_CHARACTER = "/sys/dev/char"
_TTYS = "/sys/class/tty"
_VIRTUAL_CONSOLES = "/sys/class/vtconsole"
# Nodes of VFIO and UIO, which belong to a driver in userspace, and nodes of disks, for which see Disks.
_OTHERS_BUSINESS = ("vfio-dev", "uio", "scsi_generic", "bsg", "nvme", "nvme-generic", "nvme-fabrics")


class Nodes:
    """A snapshot of all of them; each part is read only if a device needs it."""

    def __init__(self, root: Root) -> None:
        self._root = root

    @cached_property
    def _paths(self) -> dict[str, str]:
        """The directory of each character device below /sys/devices, by its number; those of no device left out."""
        paths = {numbers: self._root.target(_CHARACTER, numbers) for numbers in self._root.must_list(_CHARACTER)}
        return {numbers: path for numbers, path in paths.items() if not path.startswith("/sys/devices/virtual/")}

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        return below(self._paths)

    def open_below(self, real: str) -> list[str]:
        """Return which character devices on or below a directory are open, each with who has it open."""
        found = []
        for numbers in self._below.get(real, ()):
            path = self._paths[numbers]
            if self._root.link_name(path, "subsystem") not in _OTHERS_BUSINESS:
                found += ["%s is open in %s" % (self._name(numbers), user) for user in self._users.get(numbers, ())]
        return found

    def _name(self, numbers: str) -> str:
        for line in (self._root.read_text(self._paths[numbers], "uevent") or "").splitlines():
            if line.startswith("DEVNAME="):
                return "/dev/" + line[len("DEVNAME=") :]
        return "/dev/" + self._paths[numbers].rpartition("/")[2]

    @cached_property
    def _users(self) -> dict[str, list[str]]:
        names = {self._name(numbers): numbers for numbers in self._paths}
        pairs = sorted({(names[opened.path], opened.pid) for opened in open_files(self._root, names)})
        found: dict[str, list[str]] = {}
        for numbers, pid in pairs:
            found.setdefault(numbers, []).append(described(self._root, pid))
        return found

    def consoles_below(self, real: str) -> list[str]:
        """Say which of the kernel's consoles are on or below a directory."""
        names = (self._root.read_text(_TTYS, "console/active") or "").split()
        found = ["the kernel's console is %s" % name for name in names if self._is_below(real, _TTYS, name)]
        graphics = [name for name in self._root.listdir("/sys/class/graphics") if name.startswith("fb")]
        shown = [name for name in graphics if self._is_below(real, "/sys/class/graphics", name)]
        # A framebuffer of the firmware's is not below the display that it is on.
        if not shown and self._root.read_text(real, "boot_vga") != "1":
            return found
        for console in self._root.listdir(_VIRTUAL_CONSOLES):
            kind = self._root.read_text(_VIRTUAL_CONSOLES, console, "name") or ""
            if self._root.read_text(_VIRTUAL_CONSOLES, console, "bind") == "1" and "dummy" not in kind:
                found.append("%s is bound: %s%s" % (console, kind, " on " + ", ".join(shown) if shown else ""))
        return found

    def _is_below(self, real: str, *parts: str) -> bool:
        return self._root.target(*parts).startswith(real + "/")
