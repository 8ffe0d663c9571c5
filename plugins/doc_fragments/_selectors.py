# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that declare devices, described once."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of every module that takes a list of devices."""

    DOCUMENTATION = r"""
options:
  devices:
    suboptions:
      address:
        description:
          - The PCI address (BDF), such as V(0000:04:00.0); the domain V(0000) may be left out.
          - A range such as V(0000:04:00.0-0000:04:00.3) means every device there is from the first to the last.
          - Several addresses and ranges are separated by commas.
        type: str
      vendor_device:
        description: Every device with this vendor and device number, such as V(8086:10d3).
        type: str
      subsystem:
        description: With O(devices[].vendor_device), only those with this subsystem vendor and device number.
        type: str
      interface:
        description: The device of this network interface.
        type: str
      mac:
        description: The device of the network interface with this MAC address, permanently or now.
        type: str
      slot:
        description:
          - All devices in this physical slot, by its name in C(/sys/bus/pci/slots), virtual functions left out.
          - V(4.1) is function 1 of what is in slot 4.
        type: str
      serial:
        description:
          - Every device with this serial number, PCI Express's own (as C(lspci -v) shows it) or that of an NVMe disk.
          - All functions of a card may have the same one.
        type: str
      pf:
        description:
          - Virtual functions of this physical one, which is named by its address, MAC address or interface.
        type: str
      vf:
        description:
          - With O(devices[].pf), the indexes of the virtual functions; numbers, ranges such as V(0-3), or V(all).
          - All, if left out.
        type: list
        elements: str
      count:
        description: How many devices this entry must mean. Any other number is an error that shows them.
        type: int
      write_combining:
        description:
          - Which of the devices' BARs C(vfio-pci) maps write-combined, by number, such as V([2]). Stores to them are
            then merged and may change their order, which is right for memory and wrong for registers.
          - V(prefetchable) means those that hold data only as far as can be told. They are prefetchable, without the
            MSI-X table, registers of virtio or of controllers that are known, and another BAR has the registers.
          - A BAR that is known to hold registers is refused, V(write_combining), and so is a host that cannot do it,
            such as one that is not x86. No other option overrides this.
          - It takes the kernel module C(noiommu), also on a host with an IOMMU, which then stays as secure as it was.
        type: list
        elements: str
  sriov:
    suboptions:
      pf:
        description: The physical function, by its address, MAC address or interface.
        type: str
        required: true
      vfs:
        description: How many virtual functions it has.
        type: int
        required: true
      functions:
        description:
          - Settings of single virtual functions, each entry for some of them. What is not set stays as the driver has
            it. Two entries must not set the same of the same virtual function.
          - Which ones a card can do depends on the driver of its physical function.
        type: list
        elements: dict
        suboptions:
          vf:
            description: The indexes of the virtual functions; numbers, ranges such as V(0-3), or V(all), if left out.
            type: list
            elements: str
          mac:
            description: The MAC address of the one virtual function that the entry means.
            type: str
          vlan:
            description: The VLAN, V(1) to V(4094), whose tag the card adds and removes; V(0) is none.
            type: int
          qos:
            description: The priority in that tag, V(0) to V(7), V(0) if left out. Needs O(sriov[].functions[].vlan).
            type: int
          vlan_protocol:
            description: The kind of that tag, V(802.1Q) if left out. Needs O(sriov[].functions[].vlan).
            type: str
            choices: ["802.1Q", 802.1ad]
          trust:
            description: Whether its application may change its MAC address, or receive what is for others.
            type: bool
          spoof_check:
            description: Whether frames from another address than its own are dropped.
            type: bool
          min_tx_rate:
            description: The least rate of sending in Mbit/s that it is given; V(0) is none.
            type: int
          max_tx_rate:
            description: The highest rate of sending in Mbit/s; V(0) is no limit.
            type: int
          link_state:
            description: The link that it sees, V(auto) for that of the port.
            type: str
            choices: [auto, enable, disable]
"""
