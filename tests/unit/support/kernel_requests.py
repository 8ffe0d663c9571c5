# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How code under test reaches a simulated kernel: each request is counted, and has its effect or fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import Runner, RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._devices.control import Kernel
from ansible_collections.baremetal.noiommu.plugins.module_utils._host.pci import PciDevice

if TYPE_CHECKING:
    from .fake_kernel import Machine

PARAMETERS = "/sys/module/noiommu/parameters"


class MachineRoot(Root):
    """Files of the machine: what is written to sysfs has its effect."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(str(machine.tree.base))
        self._machine = machine

    def write_sysfs(self, path: str, value: str) -> None:
        machine, text = self._machine, value.strip()
        machine.request("%s <- %s" % (path, text))
        folder, name = os.path.split(path)
        try:
            if folder == PARAMETERS and name in ("add", "remove"):
                (machine.add if name == "add" else machine.drop)(text)
            elif folder == PARAMETERS and name == "write_combining":
                machine.combine(text)
            elif name == "bind":
                machine.bind(text, os.path.basename(folder))
            elif name == "unbind":
                machine.unbind(text)
            elif name == "sriov_numvfs":
                machine.functions(os.path.basename(folder), int(text))
            elif name == "drivers_probe":
                machine.probe(text)
            elif name == "driver_override":
                machine.tree.file(self.realpath(folder) + "/" + name, text or "(null)")
            else:
                super().write_sysfs(path, value)
        except OSError as exc:
            raise HostError("kernel_write", path, ["%s: %s" % (path, exc)], errno=exc.errno) from exc

    def write_file(self, path: str, text: str, mode: int = 0o644) -> None:
        self._machine.request("write " + path)
        super().write_file(path, text, mode)

    def write_link(self, path: str, target: str) -> None:
        self._machine.request("link " + path)
        super().write_link(path, target)

    def remove_file(self, path: str) -> bool:
        self._machine.request("remove " + path)
        return super().remove_file(path)


class MachineRunner(Runner):
    """Commands: modprobe loads and unloads modules, all others succeed and do nothing."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def run(self, *argv: str) -> RunResult:
        machine = self._machine
        machine.request(" ".join(argv))
        if argv[:2] == ("modprobe", "-r"):
            return RunResult(machine.unload(argv[2]), "", "")
        if argv[0] == "modprobe":
            if argv[1] in machine.broken:
                return RunResult(1, "", "modprobe: ERROR: could not insert '%s': Exec format error" % argv[1])
            machine.load(argv[1])
        return RunResult(0, "", "")


class MachineKernel(Kernel):
    """Requests to the kernel, made in this process."""

    def before_threads(self) -> None:
        pass  # nothing here is written by processes

    def request_unbind(self, device: PciDevice, driver: str, holders: Callable[[], list[str]]) -> None:
        self.root.write_sysfs("/sys/bus/pci/drivers/%s/unbind" % driver, device.address)

    def link_down(self, name: str) -> None:
        self.root._machine.request("link down " + name)  # pylint: disable=protected-access
        self.root._machine.tree.file(self.root.realpath("/sys/class/net", name, "flags"), "0x1002")

    def link_up(self, name: str) -> None:
        self.root._machine.request("link up " + name)  # pylint: disable=protected-access
        self.root._machine.tree.file(self.root.realpath("/sys/class/net", name, "flags"), "0x1003")
