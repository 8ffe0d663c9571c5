# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens to devices over a reboot."""

from __future__ import annotations

from ansible_collections.baremetal.noiommu.plugins.module_utils._binding.request import Request
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_kernel import Machine

NIC, VIRTIO, FREE = "0000:00:04.0", "0000:00:05.0", "0000:00:09.0"
REQUEST = Request([{"address": NIC}, {"address": VIRTIO}], accept_unsafe=True)


def move(host: Machine, old: str, new: str) -> None:
    """Have a device come up under another address."""
    tree = host.tree
    names = [name for name in tree.root.listdir("/sys/class/net") if old in tree.root.realpath("/sys/class/net", name)]
    tree.at(tree.real(old)).rename(tree.at("/sys/devices/pci0000:00/" + new))
    tree.remove("/sys/bus/pci/devices/" + old)
    tree.link("/sys/bus/pci/devices/" + new, "/sys/devices/pci0000:00/" + new)
    for name in names:
        tree.link("/sys/class/net/" + name, tree.real(new) + "/net/" + name)


# --- several that move ---

A, B, C = "0000:04:00.0", "0000:05:00.0", "0000:06:00.0"
ALIKE = Request([{"mac": "52:54:00:00:00:20"}, {"mac": "52:54:00:00:00:21"}], accept_unsafe=True)


def reboot(host: Machine, **drivers: str) -> None:
    """Have devices, given as ``a_04`` for 0000:04:00.0, back on the host's drivers, and nothing of ours loaded."""
    for address in host.root.listdir("/sys/bus/pci/devices"):
        if host.driver_of(address) == "vfio-pci":
            host.unbind(address)
            host.drop(address)
            host.tree.file(host.tree.real(address) + "/driver_override", "(null)")
    for number, driver in drivers.items():
        host.bind("0000:%s:00.0" % number[-2:], driver)
    for module in ("noiommu", "vfio-pci", "vfio_iommu_type1"):
        host.unload(module)
    host.requests.clear()


# --- which of several it is ---

SERIALS = {"management": "aa-aa-aa-aa-aa-aa-aa-01", "data": "bb-bb-bb-bb-bb-bb-bb-02"}
