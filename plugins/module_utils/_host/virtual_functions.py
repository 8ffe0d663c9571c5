# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be set of a virtual function; how it is read and set: vf_netlink.py."""

from __future__ import annotations

# In the order of their numbers in linux/if_link.h.
LINK_STATES = ("auto", "enable", "disable")
# VLAN tags by their Ethernet types.
PROTOCOLS = {"802.1Q": 0x8100, "802.1ad": 0x88A8}

# The settings that one request sets together.
GROUPS = (
    ("mac",),
    ("vlan", "qos", "vlan_protocol"),
    ("trust",),
    ("spoof_check",),
    ("min_tx_rate", "max_tx_rate"),
    ("link_state",),
)
