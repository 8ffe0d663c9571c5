# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel that comes later gets the parameters: by the hook that its package runs, for a copy of the running one."""

from __future__ import annotations

import contextlib

import pytest
from live import on

MARK = "rig"  # what the release of the copy ends with
LINES = {
    "sierra": ("/boot/efi/loader/entries/*-%s.conf", "intel_iommu=on"),
    "united": ("/boot/efi/EFI/Linux/*-%s.efi", "hugepagesz=1G hugepages=1"),
}


@contextlib.contextmanager
def another_kernel(name: str):
    """Have a second kernel installed, as far as the boot chain sees."""
    old = on(name, "uname -r").strip()
    new = f"{old}+{MARK}"
    on(
        name,
        f"set -e; mkdir -p /lib/modules/{new}/kernel; cp /boot/vmlinuz-{old} /boot/vmlinuz-{new};"
        f" cp /boot/initrd.img-{old} /boot/initrd.img-{new}",
    )
    try:
        yield new
    finally:
        on(
            name,
            f"kernel-install remove {new}; rm -rf /lib/modules/{new} /boot/vmlinuz-{new} /boot/initrd.img-{new}",
        )


@pytest.mark.parametrize("name", LINES)
def test_the_hook_of_a_kernels_package_gives_it_the_parameters(name):
    pattern, parameter = LINES[name]
    with another_kernel(name) as release:
        on(name, f"/etc/kernel/postinst.d/zz-systemd-boot {release} /boot/vmlinuz-{release}")
        path = on(name, f"ls {pattern % release}").strip()
        assert parameter in on(name, f"grep -a -o '{parameter}' {path} | head -1"), path
    assert on(name, f"ls {pattern % release} 2>/dev/null | wc -l").strip() == "0"
