# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot parameters, whichever boot loader there is: set, repeated, killed, failing, taken back."""

from __future__ import annotations

import errno
import os

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.command import RunResult
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.fs import Root
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.paths import CMDLINE_RECORD as RECORD
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline import bootloaders
from ansible_collections.baremetal.noiommu.plugins.module_utils._cmdline.command_line import CommandLinePlan
from ansible_collections.baremetal.noiommu.tests.unit.support.boot_parameters import (
    PAGES,
    Make,
    changing,
    everything,
    run,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.fake_boot import (
    MACHINE_ID,
    FakeGrub,
    FakeGrubby,
    FakeSystemdBoot,
    FakeSystemdBootAsInstalled,
    FakeUnified,
)
from ansible_collections.baremetal.noiommu.tests.unit.support.killing import Killer
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

MECHANISMS = pytest.mark.parametrize(
    "make", [FakeGrub, FakeGrubby, FakeSystemdBoot, FakeSystemdBootAsInstalled, FakeUnified]
)


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
