# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts boot as the scenario says."""

from __future__ import annotations

from live import connect, on

VARIABLE = "/sys/firmware/efi/efivars/%s-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def said(name: str, variable: str) -> str:
    return on(name, f"tail -c +5 {VARIABLE % variable} | tr -d '\\000'")


def test_systemd_boot_booted_an_entry():
    assert said("sierra", "LoaderInfo").startswith("systemd-boot")
    assert not connect("sierra").file(VARIABLE % "StubInfo").exists
    assert not connect("sierra").file("/etc/kernel/cmdline").exists, "Debian writes none"
    assert len(on("sierra", "ls /boot/efi/loader/entries/*.conf").split()) == 1


def test_systemd_boot_booted_a_unified_image_with_dracuts_initial_ram_disk():
    assert said("united", "LoaderInfo").startswith("systemd-boot")
    assert said("united", "StubInfo").startswith("systemd-stub")
    assert on("united", "ls /boot/efi/EFI/Linux/*.efi /boot/efi/loader/entries").split()[-1].endswith("entries:")
    assert on("united", "dpkg-query -W -f '${Package} ' dracut").strip() == "dracut"
    assert not connect("united").file("/usr/sbin/mkinitramfs").exists


def test_no_grub_is_there():
    for name in ("sierra", "united"):
        assert not connect(name).file("/usr/sbin/update-grub").exists, name


def test_the_iommu_is_off():
    host = connect("sierra")
    assert host.file("/sys/firmware/acpi/tables/DMAR").exists and host.run("ls /sys/class/iommu").stdout == ""
