# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read how the running kernel was configured: VFIO's no-IOMMU mode, lockdown."""

from __future__ import annotations

import os
import re

from .._base.fs import Root

NOIOMMU_MODE = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


def vfio_noiommu_config(root: Root, release: str | None = None) -> str:
    """Return CONFIG_VFIO_NOIOMMU of the running kernel: y, n or unknown."""
    if root.exists(NOIOMMU_MODE):
        return "y"
    if root.exists("/sys/module/vfio"):
        return "n"  # loaded, and without the parameter
    release = release or os.uname().release
    texts = [root.read_text(path) for path in ("/boot/config-" + release, "/lib/modules/%s/config" % release)]
    texts.append(running_config(root))
    for text in filter(None, texts):
        return "y" if re.search(r"^CONFIG_VFIO_NOIOMMU=y$", text, re.MULTILINE) else "n"
    return "unknown"


def running_config(root: Root) -> str | None:
    """Return the configuration that the running kernel shows of itself, if it does."""
    packed = root.read_bytes("/proc/config.gz")
    if packed is None:
        return None
    import gzip  # slow to import, and few kernels need it
    import zlib

    try:
        return gzip.decompress(packed).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return None


def lockdown(root: Root) -> str | None:
    """Return the kernel lockdown mode, None where the kernel has no lockdown."""
    match = re.search(r"\[(\w+)\]", root.read_text("/sys/kernel/security/lockdown") or "")
    return match.group(1) if match else None
