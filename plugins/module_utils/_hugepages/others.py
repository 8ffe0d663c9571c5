# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Others on the host that set page counts as well, or count pages only once: what will replace or miss ours."""

from __future__ import annotations

from .._base.fs import Root
from .._host import sysctl
from .._host.hugetlb import Pools
from .declared import WantedPool


def warnings(root: Root, host: Pools, declared: list[WantedPool]) -> list[str]:
    """Return what deserves attention, with file and line."""
    return _sysctl(root, host, declared)


def _sysctl(root: Root, host: Pools, declared: list[WantedPool]) -> list[str]:
    counted = [wanted for wanted in declared if wanted.pool.size == host.default_size]
    found = sysctl.setting(root, "vm.nr_hugepages") if counted else None
    total = str(sum(wanted.pages for wanted in counted))
    spread = all(wanted.pool.node is None for wanted in counted) or len(host.nodes) < 2
    if found is None or (spread and found.value == total):
        return []
    return [
        "%s, line %d, sets vm.nr_hugepages to %s, but declared is %s. Whenever it is applied, as by"
        " `sysctl --system` or the upgrade of a package, it replaces the declared pages."
        " Remove the line%s; a file of the same name in /etc/sysctl.d replaces one elsewhere."
        % (
            *found,
            ", ".join("%s: %d" % (wanted.pool.label, wanted.pages) for wanted in counted),
            ", or have it say %s" % total if spread else "",
        )
    ]
