# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot parameters of systemd-boot and of unified kernel images, by kernel-install."""

from __future__ import annotations

from typing import Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline import unified
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.kernel_install import setting
from ansible_collections.baremetal.noiommu.tests.unit.support.boot_parameters import (
    PAGES,
    Make,
    everything,
    run,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import (
    MACHINE_ID,
    FakeSystemdBoot,
    FakeSystemdBootAsInstalled,
    FakeUnified,
    unified_image,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

LOADER = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
STUB = "/sys/firmware/efi/efivars/StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
BY_KERNEL_INSTALL = pytest.mark.parametrize("make", [FakeSystemdBoot, FakeUnified])


@BY_KERNEL_INSTALL
def test_kernel_install_gets_its_file_back_to_the_letter(make: Make, tree: Tree) -> None:
    boot = make(tree)
    text = tree.at("/etc/kernel/cmdline").read_text()
    run(boot, "a=1", without=["quiet"])
    assert tree.at("/etc/kernel/cmdline").read_text() == "root=UUID=1 ro a=1\n"
    run(boot, state="absent")
    assert tree.at("/etc/kernel/cmdline").read_text() == text


def test_systemd_boot_keeps_comments(tree: Tree) -> None:
    boot = FakeSystemdBoot(tree, cmdline="# ours, not= parameters\n%s" % "root=UUID=1 ro quiet")
    assert run(boot, "a=1")["after"] == boot.next == "root=UUID=1 ro quiet a=1 " + MACHINE_ID
    assert tree.at("/etc/kernel/cmdline").read_text() == "# ours, not= parameters\nroot=UUID=1 ro quiet a=1\n"
    run(boot, "a=1", "b=1")
    assert "# ours, not= parameters\n" in tree.at("/etc/kernel/cmdline").read_text()


def test_without_a_file_a_run_starts_from_what_boots_next(tree: Tree) -> None:
    boot = FakeSystemdBootAsInstalled(tree)
    tree.file("/proc/cmdline", "initrd=\\id\\initrd root=UUID=1 ro quiet single")
    run(boot, "a=1")
    assert boot.next == "root=UUID=1 ro quiet %s a=1" % MACHINE_ID
    run(boot, state="absent")
    assert not tree.root.exists("/etc/kernel/cmdline")


def test_without_a_file_a_rollback_does_not_take_the_line_that_still_runs(tree: Tree) -> None:
    boot = FakeSystemdBootAsInstalled(tree)
    before = everything(boot)
    run(boot, PAGES)
    boot.boot()
    assert PAGES in (tree.root.read_text("/proc/cmdline") or "")
    gone = run(boot, state="absent")
    assert PAGES not in boot.next and gone["after"] == boot.next and gone["reboot_required"]
    boot.boot()
    assert everything(boot) == before


def test_without_a_file_a_failing_run_leaves_no_file(tree: Tree) -> None:
    boot = FakeSystemdBootAsInstalled(tree)
    run(boot, "a=1")
    boot.boot()
    run(boot, state="absent")
    before = everything(boot)
    original_do, left = boot.do, [1]

    def fail_once(argv: tuple[str, ...]) -> str:
        done = original_do(argv)
        if left:
            left.pop()
            raise HostError("bootloader", "It went wrong.", [], "Mend it.")
        return done

    boot.do = fail_once
    with pytest.raises(HostError, match="It went wrong"):
        run(boot, "b=1")
    assert everything(boot) == before


def test_the_newest_kernel_counts_and_only_those_with_an_entry_are_made_again(tree: Tree) -> None:
    boot = FakeSystemdBootAsInstalled(tree)
    for release in ("6.1.0-2", "6.1.0-10"):
        tree.dir("/lib/modules/%s/kernel" % release)
        tree.file("/boot/vmlinuz-" + release)
    tree.file("/boot/efi/loader/entries/id-6.1.0-10.conf", "version 6.1.0-10\noptions newest")
    boot.do = lambda argv: boot.ran.append(argv[2]) or ""
    boot.ran.clear()
    done = run(boot, "a=1", check=True)
    assert done["before"] == "newest" and done["after"] == "newest a=1"
    with pytest.raises(HostError, match="would not have the parameters"):
        run(boot, "a=1")
    assert [one for one in boot.ran if " " not in one][:2] == ["6.1.0-10", "6.1.0-1"]


@pytest.mark.parametrize("make", [FakeSystemdBoot, FakeUnified])
def test_a_firmware_that_says_what_was_booted_is_believed(make: Make, tree: Tree) -> None:
    boot = make(tree)
    tree.file("/usr/sbin/update-grub")
    tree.file("/etc/default/grub")
    tree.file(LOADER, b"\x06\x00\x00\x00" + "systemd-boot 252.39\0".encode("utf-16-le"))
    expected = "systemd-boot" if make is FakeSystemdBoot else "unified-kernel-image"
    assert run(boot, "a=1")["mechanism"] == expected


def test_an_image_that_the_firmware_started_itself_is_recognised(tree: Tree) -> None:
    boot = FakeUnified(tree)
    tree.file("/usr/sbin/update-grub")
    tree.file("/etc/default/grub")
    tree.file(STUB, b"\x06\x00\x00\x00" + "systemd-stub 257\0".encode("utf-16-le"))
    assert run(boot, "a=1")["mechanism"] == "unified-kernel-image"


def _other_layout(tree: Tree) -> None:
    tree.file("/etc/kernel/install.conf", "layout=bls")


def _other_generator(tree: Tree) -> None:
    tree.file("/etc/kernel/install.conf.d/10-dracut.conf", 'uki_generator="dracut"')


def _no_ukify(tree: Tree) -> None:
    tree.remove("/usr/bin/ukify")


def _signed_by_somebody(tree: Tree) -> None:
    tree.file(FakeUnified.ENTRY, unified_image("6.1.0-1", "root=UUID=1", signed=True))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_other_layout, "layout is bls, not uki"),
        (_other_generator, "uki_generator=dracut"),
        (_no_ukify, "no program ukify"),
        (_signed_by_somebody, "no SecureBootPrivateKey"),
    ],
)
def test_images_that_kernel_install_would_not_make_again_are_explained(
    spoil: Callable[[Tree], None], reason: str, tree: Tree
) -> None:
    boot = FakeUnified(tree)
    tree.file(STUB, b"\x06\x00\x00\x00")
    spoil(tree)
    before = tree.content()
    with pytest.raises(HostError, match="unified kernel images") as caught:
        run(boot, "a=1")
    assert reason in caught.value.evidence[0] and caught.value.remedy
    assert tree.content() == before


def test_images_that_are_signed_with_a_key_of_this_host_are_served(tree: Tree) -> None:
    boot = FakeUnified(tree)
    boot.key = "key"
    tree.file("/etc/kernel/uki.conf", "[UKI]\nSecureBootPrivateKey=/etc/kernel/key.pem")
    boot.make("root=UUID=1 ro quiet")
    assert run(boot, "a=1")["changed"] and "a=1" in boot.next


def test_a_setting_of_kernel_install_is_read_as_it_reads_it(tree: Tree) -> None:
    assert setting(tree.root, "layout") == ""
    tree.file("/usr/lib/kernel/install.conf", "layout=vendor")
    assert setting(tree.root, "layout") == "vendor"
    tree.file("/etc/kernel/install.conf", "#layout=bls\nBOOT_ROOT=/efi")
    assert setting(tree.root, "layout") == ""
    tree.file("/usr/lib/kernel/install.conf.d/20-x.conf", "layout='bls'")
    tree.file("/usr/lib/kernel/install.conf.d/30-x.conf", "layout=other")
    tree.file("/etc/kernel/install.conf.d/30-x.conf", " layout=uki")
    assert setting(tree.root, "layout") == "uki"


@pytest.mark.parametrize(
    "data", [b"", b"MZ", b"MZ".ljust(0x40, b"\xff"), unified_image("6.1", "a")[:0x1A0], b"\0" * 999]
)
def test_a_file_that_is_no_image(data: bytes, tree: Tree) -> None:
    tree.file("/x.efi", data)
    assert unified.read(tree.root, "/x.efi") is None
    assert not unified.is_signed(tree.root, "/x.efi")


def test_what_an_image_says(tree: Tree) -> None:
    tree.file("/x.efi", unified_image("6.12.1-amd64", " root=UUID=1 ro"))
    assert unified.read(tree.root, "/x.efi") == ("6.12.1-amd64", "root=UUID=1 ro")
    assert not unified.is_signed(tree.root, "/x.efi")
    tree.file("/x.efi", unified_image("6.12.1-amd64", "a", signed=True))
    assert unified.is_signed(tree.root, "/x.efi")


@BY_KERNEL_INSTALL
def test_nothing_to_boot_of_an_installed_kernel(make: Make, tree: Tree) -> None:
    boot = make(tree)
    tree.file(LOADER, b"\x06\x00\x00\x00" + "systemd-boot 257\0".encode("utf-16-le"))
    tree.remove(boot.ENTRY)
    with pytest.raises(HostError, match="has nothing to boot of an installed kernel"):
        run(boot, "a=1")
