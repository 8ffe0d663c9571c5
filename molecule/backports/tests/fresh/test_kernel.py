# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host runs a kernel of another series than its release came with."""

from __future__ import annotations

from live import on


def test_the_kernel_is_from_backports():
    release = on("echo", "uname -r")
    assert tuple(map(int, release.split(".")[:2])) >= (7, 3), release
    assert "bpo13" in on("echo", "dpkg-query -W -f '${Version}' linux-image-$(uname -r)")
