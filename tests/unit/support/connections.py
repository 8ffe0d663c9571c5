# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TCP connections as the kernel lists them."""

from __future__ import annotations

# As a little-endian machine prints them: 10.0.0.5 is 0500000A.
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0500000A:0016 0200000A:C350 01 00000000:00000000 02:00000000 00000000     0        0 2 2 0 20 4 30 10 -1
   2: 0600000A:9C40 0200000A:01BB 01 00000000:00000000 02:00000000 00000000     0        0 3 2 0 20 4 30 10 -1
   3: 0700000A:0016 0200000A:C350 06 00000000:00000000 03:00000EA2 00000000     0        0 0 3 0"""
