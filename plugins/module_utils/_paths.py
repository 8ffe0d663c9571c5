# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the boot unit and its program are on the host."""

from __future__ import annotations

MODPROBE = "/etc/modprobe.d/noiommu.conf"
UNIT_NAME = "noiommu-bindings.service"
UNIT = "/etc/systemd/system/" + UNIT_NAME
WANTS = "/etc/systemd/system/multi-user.target.wants/" + UNIT_NAME
TOOL = "/usr/local/lib/noiommu/noiommu_host"
VERIFY = "/usr/local/sbin/noiommu-verify"
