# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

import pytest
from ansible_collections.baremetal.noiommu.plugins.module_utils._base.errors import HostError
from ansible_collections.baremetal.noiommu.plugins.module_utils._host import taint
from ansible_collections.baremetal.noiommu.tests.unit.support.tree import Tree

OURS = (
    "4,{seq},95000000,-;vfio-pci 0000:00:04.0: noiommu: handed to dpdk-testpmd[812] without an IOMMU:"
    " it can read and write all memory; the kernel is tainted"
)


def host(tree: Tree, mask: int, *log: str, first: int = 0) -> Tree:
    tree.file("/proc/sys/kernel/tainted", str(mask))
    tree.file("/proc/stat", "cpu 1 2 3\nbtime 1700000000\nprocesses 5")
    lines = [line.format(seq=first + number) for number, line in enumerate(log)]
    tree.file("/dev/kmsg", "\n SUBSYSTEM=pci\n".join(lines))
    return tree


BOOT = "5,{seq},0,-;Linux version 6.1.0"


def test_an_untainted_kernel(tree: Tree) -> None:
    report = taint.report(host(tree, 0).root)
    assert (report["mask"], report["flags"], report["insecure_passthrough"]) == (0, [], False)


def test_every_documented_bit_has_letter_and_name(tree: Tree) -> None:
    report = taint.report(host(tree, (1 << 20) - 1, BOOT).root)
    assert "".join(flag["letter"] for flag in report["flags"]) == "PFSRMBUDAWCIOELKXTNJ"
    assert [flag["value"] for flag in report["flags"]] == [1 << bit for bit in range(20)]
    assert len({flag["name"] for flag in report["flags"]}) == 20


def test_a_bit_from_the_future_is_shown_as_unknown(tree: Tree) -> None:
    flag = taint.report(host(tree, 1 << 25, BOOT).root)["flags"][0]
    assert (flag["bit"], flag["letter"], flag["name"]) == (25, "?", "bit_25")


def test_our_own_line_is_proof_and_tells_who_and_when(tree: Tree) -> None:
    tree.file("/sys/module/noiommu/taint", "OE")
    report = taint.report(host(tree, 12352, BOOT, OURS).root)
    assert report["insecure_passthrough"] is True
    user, out_of_tree, unsigned = report["flags"]
    assert user["attribution"][0] | {"evidence": ""} == {
        "kind": "process",
        "name": "dpdk-testpmd",
        "pid": 812,
        "device": "0000:00:04.0",
        "since": "2023-11-14T22:14:55Z",
        "evidence": "",
        "insecure_passthrough": True,
    }
    assert [cause["name"] for cause in out_of_tree["attribution"] + unsigned["attribution"]] == ["noiommu", "noiommu"]
    assert out_of_tree["attribution"][0]["evidence"] == "/sys/module/noiommu/taint: OE"


@pytest.mark.parametrize(
    ("line", "kind", "name"),
    [
        ("4,{seq},1,-;vfio-pci 0000:00:04.0: vfio-noiommu device opened by user (vpp_main:77)", "process", "vpp_main"),
        (
            "4,{seq},1,-;vfio-pci 0000:00:04.0: Adding kernel taint for vfio-noiommu group on device",
            "device",
            "0000:00:04.0",
        ),
    ],
)
def test_the_builtin_backend_is_recognised(tree: Tree, line: str, kind: str, name: str) -> None:
    report = taint.report(host(tree, 64, BOOT, line).root)
    assert report["insecure_passthrough"] is True
    assert [(cause["kind"], cause["name"]) for cause in report["flags"][0]["attribution"]] == [(kind, name)]


def test_an_existing_vfio_noiommu_group_is_proof_without_any_log(tree: Tree) -> None:
    tree.file("/sys/kernel/iommu_groups/3/name", "vfio-noiommu")
    report = taint.report(host(tree, 64).root)
    assert report["insecure_passthrough"] is True
    assert "/sys/kernel/iommu_groups/3/name" in report["evidence"][1]


def test_bit_6_alone_is_no_proof_if_the_log_is_complete(tree: Tree) -> None:
    line = "5,{seq},1,-;Setting dangerous option enable_guc - tainting kernel"
    report = taint.report(host(tree, 64, BOOT, line).root)
    assert report["insecure_passthrough"] is False
    assert report["flags"][0]["attribution"][0]["name"] == "enable_guc"
    assert "alone proves nothing" in report["evidence"][0]


def test_bit_6_with_a_log_that_has_wrapped_is_not_known(tree: Tree) -> None:
    report = taint.report(host(tree, 64, BOOT, first=500).root)
    assert report["insecure_passthrough"] is None
    assert "overwritten" in report["evidence"][1]


def test_a_gap_in_the_log_makes_it_incomplete(tree: Tree) -> None:
    tree = host(tree, 64)
    tree.file("/dev/kmsg", "5,0,0,-;one\n5,2,9,-;three")
    assert taint.report(tree.root)["insecure_passthrough"] is None


def test_bit_6_without_a_readable_log_is_not_known(tree: Tree) -> None:
    tree = host(tree, 64)
    tree.remove("/dev/kmsg")
    report = taint.report(tree.root)
    assert report["insecure_passthrough"] is None
    assert report["evidence"][1] == "/dev/kmsg: No such file or directory"


def test_what_userspace_writes_into_the_log_is_no_evidence(tree: Tree) -> None:
    report = taint.report(host(tree, 64, BOOT, OURS.replace("4,{seq}", "12,{seq}", 1)).root)
    assert report["insecure_passthrough"] is False


def test_an_unloaded_module_is_still_known_from_the_log(tree: Tree) -> None:
    line = "4,{seq},2,-;foo: loading out-of-tree module taints kernel."
    report = taint.report(host(tree, 4096, BOOT, line).root)
    assert [cause["name"] for cause in report["flags"][0]["attribution"]] == ["foo"]


def test_a_module_is_attributed_once_though_log_and_sysfs_tell(tree: Tree) -> None:
    tree.file("/sys/module/foo/taint", "O")
    line = "4,{seq},2,-;foo: loading out-of-tree module taints kernel."
    report = taint.report(host(tree, 4096, BOOT, line).root)
    assert len(report["flags"][0]["attribution"]) == 1
    assert report["flags"][0]["attribution"][0]["since"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("bit", "lines", "kind", "name", "pid"),
    [
        (0, ["nvidia: module license 'NVIDIA' taints kernel."], "module", "nvidia", None),
        (1, ["foo: bad vermagic: kernel tainted."], "module", "foo", None),
        (2, ["msr: Write to unrecognized MSR 0x1a4 by wrmsr (pid: 31)."], "process", "wrmsr", 31),
        (4, ["mce: [Hardware Error]: Machine check events logged"], "log", "mce", None),
        (5, ["BUG: Bad page state in process dpdk  pfn:12345"], "process", "dpdk", None),
        (
            7,
            [
                "BUG: unable to handle page fault for address: ffff",
                "#PF: supervisor",
                "Oops: 0002 [#1] PREEMPT SMP",
                "CPU: 1 PID: 44 Comm: bad Tainted: G",
            ],
            "process",
            "bad",
            44,
        ),
        (8, ["ACPI: Table Upgrade: override [DSDT-BOCHS -BXPC]"], "log", "DSDT-BOCHS -BXPC", None),
        (
            9,
            [
                "WARNING: CPU: 0 PID: 9 at drivers/iommu/iommu.c:300 f+0x1/0x2",
                "Modules linked in: a b",
                "CPU: 0 PID: 9 Comm: modprobe Not tainted 6.1.0",
            ],
            "process",
            "modprobe",
            9,
        ),
        (9, ["WARNING: drivers/iommu/iommu.c:300 at f+0x1/0x2, CPU#0: x/1"], "log", "drivers/iommu/iommu.c:300", None),
        (
            10,
            ["foo: module is from the staging directory, the quality is unknown, you have been warned."],
            "module",
            "foo",
            None,
        ),
        (14, ["watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [vpp_main:12]"], "process", "vpp_main", 12),
        (15, ["klp: tainting kernel with TAINT_LIVEPATCH"], "module", "klp", None),
        (18, ["kt: loading test module taints kernel."], "module", "kt", None),
    ],
)
def test_the_kernels_own_words_name_who_it_was(
    tree: Tree, bit: int, lines: list[str], kind: str, name: str, pid: int | None
) -> None:
    log = ["4,{seq},%d000000,-;%s" % (number, line) for number, line in enumerate(lines, 1)]
    (flag,) = taint.report(host(tree, 1 << bit, BOOT, *log).root)["flags"]
    first = flag["attribution"][0]
    assert (first["kind"], first["name"], first["pid"]) == (kind, name, pid)
    assert first["since"] == "2023-11-14T22:13:21Z" and flag["not_attributed"] is None
    assert lines[0] in first["evidence"]


def test_each_device_and_process_is_named_once(tree: Tree) -> None:
    other = OURS.replace("0000:00:04.0", "0000:00:05.0")
    report = taint.report(host(tree, 64, BOOT, OURS, other, OURS).root)
    named = [(cause["name"], cause["device"]) for cause in report["flags"][0]["attribution"]]
    assert named == [("dpdk-testpmd", "0000:00:04.0"), ("dpdk-testpmd", "0000:00:05.0")]


def test_nobody_named_says_why(tree: Tree) -> None:
    flag = taint.report(host(tree, 8, BOOT).root)["flags"][0]
    assert flag["attribution"] == [] and "does not mention one" in flag["not_attributed"]
    flag = taint.report(host(tree, 8, BOOT, first=7).root)["flags"][0]
    assert "overwritten" in flag["not_attributed"]


def test_without_proc_there_is_an_explained_error(tree: Tree) -> None:
    with pytest.raises(HostError) as caught:
        taint.report(tree.root)
    assert "/proc/sys/kernel/tainted" in str(caught.value)
