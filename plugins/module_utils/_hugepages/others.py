# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other software on the host that sets page counts too, or counts pages only once."""

from __future__ import annotations

import re

from .._base.fs import Root
from .._host import dpdk_service, sysctl, tuned
from .._host.hugetlb import Pool, Pools
from .declared import WantedPool

# Processes that tell Kubernetes how many pages the node has: kubelet, or a program that includes it.
_KUBELETS = {"kubelet", "k3s-server", "k3s-agent", "kubelite"}
_POOL = re.compile(r"/sys/(?:kernel/mm|devices/system/node/node(\d+|\*))/hugepages/hugepages-(\d+)kB/nr_hugepages\Z")


def warnings(root: Root, host: Pools, declared: list[WantedPool], changing: bool) -> list[str]:
    """Return warnings with file and line; ``changing`` is whether this run changes live counts."""
    found = _sysctl(root, host, declared) if declared else []
    if declared and dpdk_service.is_enabled(root):
        found += _dpdk_service(root, declared)
    if declared and tuned.is_enabled(root):
        found += _tuned(root, host, declared)
    return found + (_kubelet(root) if changing else [])


def _has_other(declared: list[WantedPool], pool: Pool, count: str, nodes: int) -> bool:
    """Whether somebody else sets other pages than those declared."""
    counted = [wanted for wanted in declared if wanted.pool.size == pool.size]
    if pool.node is not None:
        counted = [wanted for wanted in counted if wanted.pool.node in (None, pool.node)]
        return any(wanted.pool.node is None or str(wanted.pages) != count for wanted in counted)
    spread = all(wanted.pool.node is None for wanted in counted) or nodes < 2
    return bool(counted) and not (spread and str(sum(wanted.pages for wanted in counted)) == count)


def _shown(declared: list[WantedPool], size: int) -> str:
    counted = [wanted for wanted in declared if wanted.pool.size == size]
    return ", ".join("%s: %d" % (wanted.pool.label, wanted.pages) for wanted in counted)


def _sysctl(root: Root, host: Pools, declared: list[WantedPool]) -> list[str]:
    found, size = sysctl.setting(root, "vm.nr_hugepages"), host.default_size
    if found is None or not _has_other(declared, Pool(size, None), found.value, len(host.nodes)):
        return []
    counted = [wanted for wanted in declared if wanted.pool.size == size]
    spread = all(wanted.pool.node is None for wanted in counted) or len(host.nodes) < 2
    return [
        "%s, line %d, sets vm.nr_hugepages to %s, but declared is %s. Whenever it is applied, as by"
        " `sysctl --system` or the upgrade of a package, it replaces the declared pages."
        " Remove the line%s; a file of the same name in /etc/sysctl.d replaces one elsewhere."
        % (
            *found,
            _shown(declared, size),
            ", or have it say %d" % sum(wanted.pages for wanted in counted) if spread else "",
        )
    ]


def _dpdk_service(root: Root, declared: list[WantedPool]) -> list[str]:
    nodes = len(Pools(root).nodes)
    return [
        "%s, line %d, has %s reserve %d pages of %s, but declared is %s. At boot the declared ones come after it, but"
        " whenever it is started again, as by an upgrade of its package, its own replace them. Remove the line."
        % (
            dpdk_service.CONF,
            pages.line,
            dpdk_service.NAME,
            pages.number,
            Pool(pages.size, pages.node).label,
            _shown(declared, pages.size),
        )
        for pages in dpdk_service.pages(root)
        if _has_other(declared, Pool(pages.size, pages.node), str(pages.number), nodes)
    ]


def _tuned(root: Root, host: Pools, declared: list[WantedPool]) -> list[str]:
    found = []
    for setting in tuned.settings(root):
        sizes = [
            pool.size
            for pool in _pools_set(host, setting)
            if _has_other(declared, pool, setting.value, len(host.nodes))
        ]
        if sizes:
            found.append(
                "%s, line %d, of an active profile of TuneD sets %s, but declared is %s. TuneD starts after the"
                " declared pages are reserved, and its own replace them at every boot. Remove the line, in a copy of"
                " the profile below /etc/tuned if it is not yours."
                % (setting.path, setting.line, _said(setting), _shown(declared, sizes[0]))
            )
    return found


def _pools_set(host: Pools, setting: tuned.TunedSetting) -> list[Pool]:
    """Return the pools that a setting of TuneD is about."""
    if setting.section == "sysctl" and setting.key.replace("/", ".") == "vm.nr_hugepages":
        return [Pool(host.default_size, None)]
    if setting.section == "sysfs":
        match = _POOL.match(setting.key)
        if match:
            node, size = match.group(1), int(match.group(2)) << 10
            if node == "*":
                return [Pool(size, number) for number in host.nodes]
            return [Pool(size, None if node is None else int(node))]
    if setting.section == "bootloader" and setting.key.startswith("cmdline") and "hugepages=" in setting.value:
        # For any size: the kernel accepts one reservation per size, the last one.
        words = re.findall(r"hugepagesz=(\d+)([KMG])", setting.value, re.IGNORECASE)
        sizes = [int(number) << {"K": 10, "M": 20, "G": 30}[unit.upper()] for number, unit in words]
        return [Pool(size, None) for size in sizes or [host.default_size]]
    return []


def _said(setting: tuned.TunedSetting) -> str:
    if setting.section == "bootloader":
        return "%s on the kernel command line" % " ".join(re.findall(r"hugepages\w*=\S+", setting.value))
    return "%s to %s" % (setting.key, setting.value)


def _kubelet(root: Root) -> list[str]:
    for pid in root.listdir("/proc"):
        name = root.read_text("/proc", pid, "comm") if pid.isdecimal() else None
        if name in _KUBELETS:
            return [
                "%s (process %s) counts the pages of this host only when it starts: restart its service, so that"
                " Kubernetes knows the new numbers." % (name, pid)
            ]
    return []
