# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the distributions' mechanisms for the kernel command line of the next boot a host has.

Each one shows the lines that it boots with, says which of its files have to change for a set of parameters, and then
has them take effect. Only GRUB as Debian and Ubuntu have it is proven on machines.
"""

from __future__ import annotations

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._host import kernels
from .grub import Grub, Grubby
from .kernel_install import STUB_INFO, SystemdBoot, UnifiedImages, setting
from .mechanism import BootLoader

_LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def detect(root: Root, runner: Runner) -> BootLoader:
    """Return this host's mechanism: what the firmware says was booted decides, then the distribution's tools."""
    if root.exists(STUB_INFO):
        return UnifiedImages(root, runner)
    said = (root.read_bytes(_LOADER_INFO) or b"").decode("utf-16-le", "ignore")
    if "systemd-boot" in said:
        return _by_layout(root, runner)
    if kernels.find_program(root, Grub.program) and root.exists(Grub.defaults):
        return Grub(root, runner)
    if kernels.find_program(root, Grubby.program):
        return Grubby(root, runner)
    if kernels.find_program(root, SystemdBoot.program) and (_is_unified(root) or SystemdBoot(root, runner).bootable()):
        return _by_layout(root, runner)
    raise HostError(
        "bootloader",
        "This host's kernel command line cannot be changed by any known mechanism.",
        evidence=[
            "no update-grub with %s, no grubby, no kernel-install with entries in %s"
            % (Grub.defaults, ", ".join(SystemdBoot(root, runner).folders)),
        ],
        remedy="Put the parameters on the command line as this host's boot loader wants it, and reboot.",
    )


def _is_unified(root: Root) -> bool:
    return setting(root, "layout") == "uki"


def _by_layout(root: Root, runner: Runner) -> BootLoader:
    return UnifiedImages(root, runner) if _is_unified(root) else SystemdBoot(root, runner)
