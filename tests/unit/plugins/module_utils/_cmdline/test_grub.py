# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot parameters in GRUB's settings and by grubby: what others set stays."""

from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline import bootloaders
from ansible_collections.baremetal.noiommu.tests.unit.support.boot_parameters import (
    PAGES,
    changing,
    everything,
    run,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import (
    FakeGrub,
    FakeGrubby,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

FRAGMENT = "/etc/default/grub.d/zz-noiommu-custom.cfg"


def test_grub_keeps_every_flag_of_others_and_the_recovery_entry(tree: Tree) -> None:
    boot = FakeGrub(tree, linux="console=ttyS0 console=tty0", default='quiet dyndbg=\\"file a.c +p\\" * $vt_handoff')
    recovery = boot.entries[1]
    run(boot, "intel_iommu=on", PAGES)
    assert boot.entries == [
        '%s console=ttyS0 console=tty0 quiet dyndbg="file a.c +p" *  intel_iommu=on %s' % ("root=UUID=1 ro", PAGES),
        recovery,
    ]


def test_grub_without_a_default_line_makes_one(tree: Tree) -> None:
    boot = FakeGrub(tree, default="")
    run(boot, "a=1")
    assert boot.next == "root=UUID=1 ro console=ttyS0 a=1"


def test_grub_takes_words_off_wherever_they_are_set_and_nothing_else(tree: Tree) -> None:
    boot = FakeGrub(tree, linux="iommu=off a=[1] iommu=off xiommu=off iommu=offx", default="iommu=off iommu.off=1")
    run(boot, without=["iommu=off", "a=[1]"])
    assert [entry.split() for entry in boot.entries] == [
        ["root=UUID=1", "ro", "xiommu=off", "iommu=offx", "iommu.off=1"],
        ["root=UUID=1", "ro", "single", "xiommu=off", "iommu=offx"],
    ]


def test_grub_reads_entries_of_the_distribution_only(tree: Tree) -> None:
    boot = FakeGrub(tree)
    assert run(boot, "foreign")["changed"]


def test_grub_makes_an_overruled_value_the_last_one(tree: Tree) -> None:
    boot = FakeGrub(tree, default="intel_iommu=on intel_iommu=off")
    assert run(boot, "intel_iommu=on")["changed"]
    assert boot.next.endswith("intel_iommu=off intel_iommu=on")


def test_grub_reads_sets_in_the_order_of_their_files_which_check_mode_predicts(tree: Tree) -> None:
    boot = FakeGrub(tree, default="quiet loglevel=3")
    before = everything(boot)
    for name, declared, expected in (
        ("late", {"parameters": ["a=1"], "without": ["quiet"]}, "loglevel=3 a=1"),
        ("early", {"parameters": ["b=1"]}, "loglevel=3 b=1 a=1"),
        ("early-too", {"parameters": ["c=1"]}, "loglevel=3 c=1 b=1 a=1"),
        ("early", {"parameters": ["b=1", "d=1"]}, "loglevel=3 c=1 b=1 d=1 a=1"),
        ("late", {"state": "absent"}, "quiet loglevel=3 c=1 b=1 d=1"),
        ("early", {"state": "absent"}, "quiet loglevel=3 c=1"),
        ("early-too", {"state": "absent"}, "quiet loglevel=3"),
    ):
        predicted = run(boot, check=True, name=name, **declared)
        assert run(boot, name=name, **declared) == predicted
        assert predicted["after"] == boot.next == "root=UUID=1 ro console=ttyS0 " + expected
    assert everything(boot) == before


def test_grub_settings_in_another_order_are_no_change(tree: Tree) -> None:
    boot = FakeGrub(tree, default="quiet loglevel=3")
    run(boot, "a=1")
    tree.file("/etc/default/grub", 'GRUB_CMDLINE_LINUX="console=ttyS0"\nGRUB_CMDLINE_LINUX_DEFAULT="loglevel=3 quiet"')
    boot.do(("update-grub",))
    again = run(boot, "a=1")
    assert not again["changed"] and again["diff"] == [] and again["after"] == boot.next


def test_grub_fragment_of_somebody_elses_hand_is_mended(tree: Tree) -> None:
    boot = FakeGrub(tree)
    run(boot, "a=1")
    tree.file(FRAGMENT, "GRUB_CMDLINE_LINUX_DEFAULT=")
    assert run(boot, "a=1")["files"] == [FRAGMENT]
    assert boot.next.endswith("quiet a=1")


def test_grub_with_a_setting_after_ours_says_so_and_goes_back(tree: Tree) -> None:
    boot = FakeGrub(tree)
    tree.file("/etc/default/grub.d/zzz.cfg", "GRUB_CMDLINE_LINUX_DEFAULT=mine")
    boot.do(("update-grub",))
    before = everything(boot)
    with pytest.raises(HostError) as caught:
        run(boot, "a=1")
    assert "/etc/default/grub.d" in caught.value.remedy
    assert everything(boot) == before


def test_grub_config_that_cannot_be_read(tree: Tree) -> None:
    boot = FakeGrub(tree)
    tree.remove("/boot/grub/grub.cfg")
    with pytest.raises(HostError) as caught:
        run(boot, "a=1")
    assert caught.value.evidence == ["/boot/grub/grub.cfg: absent"]


def test_a_config_without_markers_as_an_installer_may_leave_it(tree: Tree) -> None:
    boot = FakeGrub(tree)
    tree.file("/boot/grub/grub.cfg", "linux /boot/vmlinuz root=1 ro a=1\ninitrd /boot/initrd.img")
    assert not run(boot, "a=1")["changed"]


ZFS = """### BEGIN /etc/grub.d/10_linux ###
### END /etc/grub.d/10_linux ###

### BEGIN /etc/grub.d/10_linux_zfs ###
function zsyshistorymenu {
\tmenuentry 'Revert system only' {
\t\tlinux\t"${kernel}" root=ZFS="${root_dataset}" ro a=1
\t}
}
menuentry 'Ubuntu' {
\tlinux\t"/BOOT/ubuntu_1@/vmlinuz-6.1.0-1" root=ZFS="rpool/ROOT/ubuntu_1" ro a=1
}
### END /etc/grub.d/10_linux_zfs ###

### BEGIN /etc/grub.d/30_os-prober ###
linux /other foreign
### END /etc/grub.d/30_os-prober ###"""


def test_grub_entries_of_ubuntu_on_zfs(tree: Tree) -> None:
    boot = FakeGrub(tree)
    tree.file("/boot/grub/grub.cfg", ZFS)
    assert bootloaders.Grub(tree.root, boot).lines() == {"": ['root=ZFS="rpool/ROOT/ubuntu_1"', "ro", "a=1"]}
    assert not run(boot, "a=1")["changed"]


def test_grubby_changes_all_kernels_in_one_call_and_keeps_values_of_the_same_name(tree: Tree) -> None:
    boot = FakeGrubby(tree, "root=/dev/sda1 ro hugepagesz=2M hugepages=64 console=tty0 console=ttyS0")
    run(boot, PAGES, "console=ttyS1")
    assert changing(boot) == [
        "grubby --update-kernel=ALL --remove-args=console hugepages hugepagesz"
        " --args=hugepagesz=2M hugepages=64 console=tty0 console=ttyS0 hugepagesz=1G hugepages=4 console=ttyS1"
    ]
    boot.ran.clear()
    run(boot, state="absent")
    assert set(boot.kernels.values()) == {"root=/dev/sda1 ro hugepagesz=2M hugepages=64 console=tty0 console=ttyS0"}


def test_grubby_puts_back_what_each_kernel_had(tree: Tree) -> None:
    boot = FakeGrubby(tree)
    boot.kernels["/boot/vmlinuz-5.13"] += " iommu=off"
    before = dict(boot.kernels)
    run(boot, "a=1", without=["iommu=off"])
    boot.kernels["/boot/vmlinuz-5.15"] = boot.kernels["/boot/vmlinuz-5.14"]
    assert not any("iommu=off" in args for args in boot.kernels.values())
    run(boot, state="absent")
    assert boot.kernels == {**before, "/boot/vmlinuz-5.15": before["/boot/vmlinuz-5.14"]}


def test_grubby_that_knows_no_kernel(tree: Tree) -> None:
    boot = FakeGrubby(tree)
    boot.kernels.clear()
    with pytest.raises(HostError, match="lists no kernel"):
        run(boot, "a=1")
