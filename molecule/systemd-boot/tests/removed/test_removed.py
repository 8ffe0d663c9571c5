# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The next boot has no parameter of ours, although the running kernel was booted with them."""

from __future__ import annotations

import pytest
from live import connect, on

LINES = {
    "sierra": ("/boot/efi/loader/entries/*.conf", "intel_iommu=on"),
    "united": ("/boot/efi/EFI/Linux/*.efi", "hugepages=1"),
}


@pytest.mark.parametrize("name", LINES)
def test_what_is_booted_next_is_without_them(name):
    path, parameter = LINES[name]
    assert parameter in on(name, "cat /proc/cmdline")
    assert on(name, f"grep -a -c '{parameter}' {path} || true").strip() == "0"
    assert on(name, f"grep -a -c mitigations=off {path}").strip() != "0"


def test_the_file_is_as_it_was():
    assert not connect("sierra").file("/etc/kernel/cmdline").exists
    assert on("united", "cat /etc/kernel/cmdline").split()[-2:] == ["loglevel=5", "mitigations=off"]
