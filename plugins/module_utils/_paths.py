# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where on the host the collection keeps what the boot unit and noiommu-verify read."""

from __future__ import annotations

# What an administrator gives systemd, and what of that starts at boot.
UNITS_DIR = "/etc/systemd/system"
WANTS_DIR = UNITS_DIR + "/multi-user.target.wants"

MODPROBE = "/etc/modprobe.d/noiommu.conf"
UNIT_NAME = "noiommu-bindings.service"
UNIT = UNITS_DIR + "/" + UNIT_NAME
WANTS = WANTS_DIR + "/" + UNIT_NAME
TOOL = "/usr/local/lib/noiommu/noiommu_host"
VERIFY = "/usr/local/sbin/noiommu-verify"
# Held by whoever changes bindings; /run forgets it with the boot.
LOCK = "/run/noiommu.lock"

# What noiommu-verify reads of the other roles.
ACCESS_RECORD = "/var/lib/noiommu/access.json"
UDEV_RULES = "/etc/udev/rules.d/60-noiommu-vfio.rules"
HUGEPAGES_SCRIPT = "/usr/local/lib/noiommu/reserve-hugepages"
