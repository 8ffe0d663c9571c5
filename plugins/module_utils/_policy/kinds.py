# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words of the policies for those who need only these: the policies bring half of the host's readers along."""

from __future__ import annotations

# The backends.
IOMMU, BUILTIN, DKMS = "iommu", "builtin", "dkms"
# The kinds of guards that speak of what is on a disk, and not of its use.
DISK_MEMBER, DISK_DATA = "disk_member", "disk_data"
VFIO_PCI = "vfio-pci"
# Drivers under which a function has no kernel interface in any network namespace.
PASSTHROUGH_DRIVERS = (VFIO_PCI, "uio_pci_generic", "igb_uio", "pci-stub", "xen-pciback")
