# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the module of this name and check the host's answer."""

from __future__ import annotations

from ansible_collections.baremetal.noiommu.plugins.plugin_utils.host_module import HostModule


class ActionModule(HostModule):
    """Nothing of its own."""
