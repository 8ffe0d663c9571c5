# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where on the host the collection keeps what the boot unit and noiommu-verify read."""

from __future__ import annotations

# The administrator's units, and those that are enabled at boot.
UNITS_DIR = "/etc/systemd/system"
WANTS_DIR = UNITS_DIR + "/multi-user.target.wants"

# What udev announces of declared devices that come back, and what binds them then.
HOTPLUG_RULES = "/etc/udev/rules.d/61-noiommu-hotplug.rules"
HOTPLUG_NAME = "noiommu-hotplug"
HOTPLUG_SERVICE = "%s/%s.service" % (UNITS_DIR, HOTPLUG_NAME)
HOTPLUG_PATH = "%s/%s.path" % (UNITS_DIR, HOTPLUG_NAME)
ANNOUNCED = "/run/noiommu-hotplug"
# Which process still waits for the kernel to unbind a device.
HANGING = "/run/noiommu-hanging"

MODPROBE = "/etc/modprobe.d/noiommu.conf"
UNIT_NAME = "noiommu-bindings.service"
UNIT = UNITS_DIR + "/" + UNIT_NAME
WANTS = WANTS_DIR + "/" + UNIT_NAME
LIBRARY, STATE = "/usr/local/lib/noiommu", "/var/lib/noiommu"
PROGRAM = LIBRARY + "/noiommu.pyz"  # of the boot unit and of noiommu-verify
VERIFY = "/usr/local/sbin/noiommu-verify"
# How each device was before the first change, and which devices each boot binds.
ORIGINALS = STATE + "/originals.json"
BINDINGS = "/etc/noiommu/bindings.json"
# Held by a run that changes something; /run is empty after a reboot.
LOCK = "/run/noiommu.lock"

# What noiommu-verify reads of the other roles.
ACCESS_RECORD = "/var/lib/noiommu/access.json"
UDEV_RULES = "/etc/udev/rules.d/60-noiommu-vfio.rules"
GRANTED_MODE = 0o660  # of the device nodes
LIMITS = "/etc/security/limits.d/60-noiommu.conf"
HUGEPAGES_SCRIPT = "/usr/local/lib/noiommu/reserve-hugepages"
HUGEPAGES_UNIT_NAME = "noiommu-hugepages.service"
HUGEPAGES_UNIT = UNITS_DIR + "/" + HUGEPAGES_UNIT_NAME
HUGEPAGES_WANTS = WANTS_DIR + "/" + HUGEPAGES_UNIT_NAME
HUGEPAGES_RECORD = "/var/lib/noiommu/hugepages.json"
HUGETLB_MOUNTS_RECORD = "/var/lib/noiommu/hugetlb-mounts.json"
CMDLINE_RECORD = "/var/lib/noiommu/cmdline.json"
HUGETLBFS_UNIT = "dev-hugepages.mount"
DROP_IN = "60-noiommu.conf"

# The kernel module in sysfs, its switch for the hint that DPDK reads, and the BARs that it makes write-combined.
MODULE = "/sys/module/noiommu"
PA_HINT = MODULE + "/parameters/dpdk_pa_hint"
WRITE_COMBINING = MODULE + "/parameters/write_combining"


def drop_in_path(name: str) -> str:
    """Return where our drop-in for a unit is."""
    return "%s/%s.d/%s" % (UNITS_DIR, name, DROP_IN)
