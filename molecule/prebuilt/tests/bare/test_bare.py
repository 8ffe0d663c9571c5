# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host cannot build anything; a kernel that nobody built for is an error naming it."""

from __future__ import annotations

from live import changes_since_baseline, on, refused

HOST = "papa"


def test_there_is_nothing_to_build_with():
    assert (
        on(HOST, "command -v dkms make gcc gcc-12 cc; ls -d /lib/modules/*/build /usr/src/linux-* 2>/dev/null; true")
        == ""
    )


def test_a_kernel_without_an_archive_is_named():
    kernel = on(HOST, "uname -r").strip()
    refused(HOST, "no prebuilt module for the kernel " + kernel, "noiommu_kmod_build_host", noiommu_kmod_build_host="")
    assert changes_since_baseline(HOST) == []
