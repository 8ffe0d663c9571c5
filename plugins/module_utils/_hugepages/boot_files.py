# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pools at every boot: a unit that reserves them early, node by node, and fails visibly if it gets fewer."""

from __future__ import annotations

from .._base.files import HEADER, RenderedFile
from .._base.paths import HUGEPAGES_SCRIPT as SCRIPT
from .._base.paths import HUGEPAGES_UNIT as UNIT
from .._base.paths import HUGEPAGES_WANTS as WANTS
from .._base.paths import WANTS_DIR
from .._host import dpdk_service
from .declared import WantedPool

# Shell, not Python: it must run before anything else fragments the memory.
_SCRIPT = r"""
failed=0

# It sets numbers of pages as well, and who comes last decides. It may hang, and the boot waits for this.
if [ -e %(wants)s/%(service)s ]; then
    for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        case $(systemctl show --property=Job --value %(service)s 2> /dev/null) in "" | 0) break ;; esac
        sleep 1
    done
fi

reserve() {
    name=$1 pool=$2/nr_hugepages count=$3 meminfo=$4 got=none
    for attempt in 1 2 3 4; do
        echo "$count" > "$pool" || break
        read -r got < "$pool"
        [ "$got" = "$count" ] && break
        echo 1 > /proc/sys/vm/compact_memory
        sleep 0.25
    done
    if [ "$got" = "$count" ]; then
        echo "$name: $got pages"
    else
        echo "$name: SHORTFALL, $got of $count pages; $(grep -h MemFree: "$meminfo")"
        failed=1
    fi
}

"""

# Before sysinit.target: nothing else has used and fragmented the memory yet. After sysctl, whose files may set the
# number of pages as well: the last one decides. Not after dpdk.service, which has no time limit: the boot waits for it.
_UNIT = """[Unit]
Description=Reserve the declared hugetlb pages
Documentation=https://github.com/baremetal-noiommu/baremetal.noiommu
DefaultDependencies=no
RequiresMountsFor=/usr/local/lib/noiommu
After=systemd-sysctl.service
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=%s
# It writes numbers to files of root's below /sys and /proc/sys, and nothing else.
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def unit() -> str:
    """Return the unit that runs the script at every boot."""
    return HEADER + _UNIT % SCRIPT


def rendered(wanted: list[WantedPool]) -> list[RenderedFile]:
    """Return all files of the boot unit; none of them exists if nothing is wanted."""
    script = "#!/bin/sh\n" + HEADER + _SCRIPT % {"wants": WANTS_DIR, "service": dpdk_service.NAME}
    for pool, count in wanted:  # noiommu-verify reads these lines: _report/hugepages.py
        script += "reserve '%s' %s %d %s\n" % (pool.label, pool.directory, count, pool.meminfo)
    script += "exit $failed\n"
    return [
        RenderedFile(SCRIPT, script if wanted else None, 0o755),
        RenderedFile(UNIT, unit() if wanted else None),
        RenderedFile(WANTS, UNIT if wanted else None, link=True),
    ]
