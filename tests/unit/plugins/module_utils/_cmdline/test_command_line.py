# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every promise of kernel_cmdline on every mechanism, then what is special about each."""

from __future__ import annotations

import errno
import os
from typing import Any, Callable

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline import bootloaders, unified
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.command_line import CommandLinePlan
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.kernel_install import setting
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.record import RECORD
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.words import (
    Parameters,
    effective,
    parse,
    split,
)
from ansible_collections.baremetal.noiommu.plugins.modules import kernel_cmdline
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import (
    MACHINE_ID,
    FakeBoot,
    FakeGrub,
    FakeGrubby,
    FakeSystemdBoot,
    FakeSystemdBootAsInstalled,
    FakeUnified,
    unified_image,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_module import FakeModule
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

PAGES = "hugepagesz=1G hugepages=4"
FRAGMENT = "/etc/default/grub.d/zz-noiommu-custom.cfg"
MECHANISMS = pytest.mark.parametrize(
    "make", [FakeGrub, FakeGrubby, FakeSystemdBoot, FakeSystemdBootAsInstalled, FakeUnified]
)
Make = Callable[[Tree], FakeBoot]


def run(
    boot: FakeBoot, *parameters: str, check: bool = False, root: Root | None = None, **params: Any
) -> dict[str, Any]:
    given = {"parameters": list(parameters), "without": [], "name": "custom", "state": "present", **params}
    module = FakeModule(given, check)
    return kernel_cmdline.kernel_cmdline(module, root or boot.tree.root, boot)


def changing(boot: FakeBoot) -> list[str]:
    """What was run that changes something."""
    return [command for command in boot.ran if "--info" not in command]


def everything(boot: FakeBoot) -> tuple:
    return boot.tree.content(), boot.next


@MECHANISMS
def test_parameters_are_there_at_the_next_boot_and_gone_after_absent(make: Make, tree: Tree) -> None:
    boot = make(tree)
    before = everything(boot)
    done = run(boot, "intel_iommu=on", PAGES)
    assert done["changed"] and done["reboot_required"] and done["after"] == boot.next
    assert boot.next.replace(" " + MACHINE_ID, "").endswith("intel_iommu=on " + PAGES)
    boot.boot()
    assert not run(boot, "intel_iommu=on", PAGES)["reboot_required"]
    gone = run(boot, state="absent")
    assert gone["changed"] and gone["reboot_required"] and "intel_iommu" not in gone["after"]
    boot.boot()
    assert everything(boot) == before
    assert not run(boot, state="absent")["changed"]


@MECHANISMS
def test_check_mode_predicts_the_real_run_and_changes_nothing(make: Make, tree: Tree) -> None:
    boot = make(tree)
    for declared in ({"without": ["quiet"]}, {"parameters": ["a=1"]}, {"state": "absent"}):
        before = everything(boot)
        predicted = run(boot, check=True, **declared)
        assert everything(boot) == before and changing(boot) == []
        real = run(boot, **declared)
        assert real == predicted
        assert real["changed"] and real["diff"]
        boot.ran.clear()


@MECHANISMS
def test_a_second_run_starts_nothing(make: Make, tree: Tree) -> None:
    boot = make(tree)
    run(boot, PAGES, without=["quiet"])
    boot.ran.clear()
    again = run(boot, PAGES, without=["quiet"])
    assert not again["changed"] and again["diff"] == [] and changing(boot) == []
    assert again["reboot_required"]


@MECHANISMS
def test_what_is_no_longer_listed_goes(make: Make, tree: Tree) -> None:
    boot = make(tree)
    run(boot, "a=1", "b=2", PAGES, without=["quiet"])
    assert "quiet" not in boot.next
    run(boot, PAGES)
    assert boot.next.split().count("quiet") == 1
    assert "a=1" not in boot.next and PAGES in boot.next


@MECHANISMS
def test_sets_live_side_by_side(make: Make, tree: Tree) -> None:
    boot = make(tree)
    before = everything(boot)
    run(boot, "intel_iommu=on", name="iommu")
    run(boot, PAGES, name="hugepages")
    assert "intel_iommu=on" in boot.next and PAGES in boot.next
    run(boot, state="absent", name="iommu")
    assert "intel_iommu=on" not in boot.next and PAGES in boot.next
    run(boot, state="absent", name="hugepages")
    assert everything(boot) == before


@MECHANISMS
def test_what_somebody_else_put_there_is_enough(make: Make, tree: Tree) -> None:
    boot = make(tree)
    done = run(boot, "quiet", "ro")
    assert not done["changed"] and not done["reboot_required"] and not tree.root.exists(RECORD)


@MECHANISMS
def test_a_run_killed_anywhere_is_finished_or_taken_back(
    make: Make, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = make(tree)
    tree.dir("/var/lib/noiommu")  # vfio_binding removes it if nothing is in it
    before = everything(boot)
    run(boot, "a=1", without=["quiet"])
    finished = everything(boot)
    killer = Killer(monkeypatch, (boot, "run"))
    for steps in killer.each(lambda: run(boot, state="absent"), lambda: run(boot, "a=1", without=["quiet"])):
        run(boot, "a=1", without=["quiet"])
        assert everything(boot) == finished, steps
    for steps in killer.each(lambda: run(boot, state="absent"), lambda: run(boot, "a=1", without=["quiet"])):
        run(boot, state="absent")
        tree.dir("/var/lib/noiommu")
        assert everything(boot) == before, steps
    for steps in killer.each(lambda: run(boot, "a=1", without=["quiet"]), lambda: run(boot, state="absent")):
        run(boot, state="absent")
        assert not run(boot, state="absent")["changed"]
        tree.dir("/var/lib/noiommu")
        assert everything(boot) == before, steps


@MECHANISMS
@pytest.mark.parametrize("done_before_the_kill", [False, True])
def test_a_run_killed_half_way_is_mended_and_taken_back(make: Make, tree: Tree, done_before_the_kill: bool) -> None:
    boot = make(tree)
    before = everything(boot)
    original_do = boot.do

    def killed(argv: tuple[str, ...]) -> str:
        if "--info=ALL" in argv:
            return original_do(argv)
        if done_before_the_kill:
            original_do(argv)
        raise KeyboardInterrupt

    for finish in ("present", "absent"):
        boot.do = killed
        with pytest.raises(KeyboardInterrupt):
            run(boot, "a=1", without=["quiet"])
        boot.do = original_do
        if finish == "present":
            assert run(boot, "a=1", without=["quiet"])["changed"] != done_before_the_kill
            assert boot.next.split().count("a=1") == 1 and "quiet" not in boot.next
            assert not run(boot, "a=1", without=["quiet"])["changed"]
        run(boot, state="absent")
        assert everything(boot) == before


@MECHANISMS
def test_a_failing_tool_leaves_everything_as_it_was(make: Make, tree: Tree) -> None:
    boot = make(tree)
    run(boot, "a=1")
    before = everything(boot)
    original_run = boot.run

    def run_failing(*argv: str) -> RunResult:
        if "--info=ALL" in argv:
            return original_run(*argv)
        return RunResult(1, "", "Generating...\ncannot create /boot/grub/grub.cfg.new: No space left on device")

    boot.run = run_failing
    for declared in ({"parameters": ["b=2"]}, {"state": "absent"}):
        with pytest.raises(HostError) as caught:
            run(boot, **declared)
        assert "No space left on device" in caught.value.message and caught.value.evidence and caught.value.remedy
        assert everything(boot) == before


@MECHANISMS
def test_what_could_not_be_put_back_is_still_recorded(make: Make, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = make(tree)
    before, original_run = everything(boot), boot.run

    def fail(_line: CommandLinePlan, _loader: bootloaders.BootLoader) -> None:
        boot.run = lambda *argv: original_run(*argv) if "--info=ALL" in argv else RunResult(1, "", "No space left")
        raise HostError("bootloader", "It went wrong.", [], "Mend it.")

    with monkeypatch.context() as patch:
        patch.setattr(CommandLinePlan, "_verify", fail)
        with pytest.raises(HostError, match="It went wrong") as caught:
            run(boot, "a=1")
    boot.run = original_run
    assert tree.root.exists(RECORD) == any("put back" in line for line in caught.value.evidence)
    run(boot, state="absent")
    assert everything(boot) == before


@MECHANISMS
def test_a_tool_that_succeeds_without_effect_is_found_out(make: Make, tree: Tree) -> None:
    boot = make(tree)
    before = everything(boot)
    original_do = boot.do
    boot.do = lambda argv: original_do(argv) if "--info=ALL" in argv else ""
    with pytest.raises(HostError, match="would not have the parameters"):
        run(boot, "a=1")
    assert everything(boot) == before


@MECHANISMS
def test_a_read_only_filesystem_is_refused_before_anything(
    make: Make, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = make(tree)
    for place in bootloaders.Grub.places + bootloaders.Grubby.places + ["/etc/kernel"]:
        tree.dir(place)
    flags = type("Flags", (), {"f_flag": os.ST_RDONLY})
    monkeypatch.setattr(os, "statvfs", lambda path: flags)
    before = everything(boot)
    for check in (True, False):
        with pytest.raises(HostError, match="mounted read-only"):
            run(boot, "a=1", check=check)
    assert everything(boot) == before and changing(boot) == []
    assert not run(boot, "quiet")["changed"]


@MECHANISMS
def test_a_full_filesystem_leaves_everything_as_it_was(make: Make, tree: Tree) -> None:
    boot = make(tree)
    before = everything(boot)

    class Full(Root):
        def write_file(self, path: str, text: str, mode: int = 0o644) -> None:
            raise HostError("file", "Could not write %s" % path, ["ENOSPC"], "Free space.", errno.ENOSPC)

    with pytest.raises(HostError, match="Could not write"):
        run(boot, "a=1", root=Full(str(tree.base)))
    assert everything(boot) == before and changing(boot) == []


@MECHANISMS
def test_a_damaged_record_is_refused(make: Make, tree: Tree) -> None:
    boot = make(tree)
    tree.file(RECORD, '{"owners": []}')
    with pytest.raises(HostError, match="record of the original kernel command line is damaged"):
        run(boot, "a=1")


# --- GRUB ---


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


# --- grubby ---


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


# --- systemd-boot and unified kernel images, by kernel-install ---

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


# --- all that is wrong from the start ---


def test_no_known_boot_loader(tree: Tree) -> None:
    boot = FakeGrub(tree)
    tree.remove("/usr/sbin/update-grub")
    with pytest.raises(HostError) as caught:
        run(boot, "a=1")
    assert "no update-grub" in caught.value.evidence[0] and "by hand" not in caught.value.message
    assert not run(boot, state="absent")["changed"]


@pytest.mark.parametrize(
    ("parameters", "evidence"),
    [
        (["a=$(reboot)"], "a boot loader or a shell"),
        (['a="b c"'], "a boot loader or a shell"),
        (["a=b;c"], "a boot loader or a shell"),
        ([""], "a boot loader or a shell"),
        ("a=1", "a list of strings or a dictionary"),
        ({"intel_iommu": True}, "YAML made a truth value of it"),
        (["quiet", "splash"], "wanted and unwanted at once"),
    ],
)
def test_parameters_that_would_not_arrive_unchanged(parameters: Any, evidence: str) -> None:
    with pytest.raises(HostError) as caught:
        parse(parameters, ["splash"])
    assert evidence in caught.value.evidence[0] and caught.value.remedy


def test_a_dictionary() -> None:
    assert parse({"intel_iommu": "on", "nosmt": None, "hugepages": 4}, []).words == [
        "intel_iommu=on",
        "nosmt",
        "hugepages=4",
    ]


def test_a_set_needs_a_name(tree: Tree) -> None:
    with pytest.raises(HostError, match="cannot name a set"):
        run(FakeGrub(tree), "a=1", name="../x")


def test_several_values_of_one_name_may_all_be_wanted() -> None:
    declared = Parameters(["console=tty0", "console=ttyS0"])
    assert all(effective(declared.words, parameter, declared) for parameter in declared.parameters)
    assert not effective(split("console=tty0 console=hvc0"), "console=tty0", declared)
